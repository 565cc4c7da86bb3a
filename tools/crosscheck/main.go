// Command crosscheck type-checks the module in the current directory for other platforms: every package, every test, and
// every package they import, down to the standard library, function bodies included.
//
//	crosscheck windows/amd64 freebsd/amd64
//
// It finds what a compiler's front end finds: a name that a platform lacks, a constant that overflows a 32-bit int, a
// file that no build tag selects. For a program as large as CoreDNS that takes seconds where the compiler takes half a
// minute for each platform.
package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/tools/go/packages"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: crosscheck GOOS/GOARCH...")
		os.Exit(2)
	}
	bad := false
	for _, platform := range os.Args[1:] {
		start := time.Now()
		checked, errors, err := check(platform)
		if err != nil {
			fmt.Fprintf(os.Stderr, "crosscheck: %s: %v\n", platform, err)
			os.Exit(1)
		}
		fmt.Printf("%s: %d packages, %d errors, %.1f s\n", platform, checked, errors, time.Since(start).Seconds())
		bad = bad || errors > 0
	}
	if bad {
		os.Exit(1)
	}
}

// check prints the errors it finds and returns how many packages it looked at, and how many errors there are.
func check(platform string) (checked, errors int, err error) {
	goos, goarch, ok := strings.Cut(platform, "/")
	if !ok {
		return 0, 0, fmt.Errorf("want GOOS/GOARCH, such as windows/amd64")
	}
	roots, err := packages.Load(&packages.Config{
		Mode:  packages.LoadAllSyntax | packages.NeedModule,
		Tests: true,
		Env:   append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch),
	}, "./...")
	if err != nil {
		return 0, 0, err
	}
	packages.Visit(roots, nil, func(*packages.Package) { checked++ })
	if len(roots) == 0 {
		return 0, 0, fmt.Errorf("no packages in the current directory")
	}
	return checked, packages.PrintErrors(roots), nil
}
