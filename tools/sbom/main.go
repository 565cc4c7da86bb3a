// Command sbom lists the modules that are in a program, for a release: a software bill of materials in CycloneDX's JSON.
//
//	SOURCE_DATE_EPOCH=1767225600 sbom v1.2.3 coredns coredns-shaker_1.2.3.cdx.json
//
// What it lists is what the linker wrote into the program, the standard library with it. The version is that of the main
// module, and of those of the same repository, which the linker does not know. Equal programs make equal lists.
package main

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"strconv"
	"time"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
	"github.com/CycloneDX/cyclonedx-gomod/pkg/generate/bin"
	"github.com/rs/zerolog"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: sbom VERSION PROGRAM FILE")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2], os.Args[3], os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// write makes the file. On an error none is left.
func write(version, program, file, epoch string) error {
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH is %q, want seconds since 1970", epoch)
	}
	bom, err := list(version, program)
	if err != nil {
		return err
	}
	bom.Metadata.Timestamp = time.Unix(seconds, 0).UTC().Format(time.RFC3339)
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	err = cyclonedx.NewBOMEncoder(out, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(bom)
	if closing := out.Close(); err == nil {
		err = closing
	}
	if err != nil {
		os.Remove(file)
	}
	return err
}

// list has no serial number, which would be another each time, and does not tell which module requires which, because
// a program does not.
func list(version, program string) (*cyclonedx.BOM, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	generator, err := bin.NewGenerator(program, bin.WithIncludeStdlib(true), bin.WithVersionOverride(version),
		bin.WithLogger(zerolog.New(os.Stderr).Level(zerolog.WarnLevel)))
	if err != nil {
		return nil, err
	}
	bom, err := generator.Generate()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	bom.Dependencies, bom.Compositions = nil, nil
	for _, dep := range info.Deps {
		if dep.Replace == nil || dep.Replace.Version != "(devel)" {
			continue
		}
		// A directory of the same repository.
		for i := range *bom.Components {
			if c := &(*bom.Components)[i]; c.Name == dep.Replace.Path {
				c.Name, c.Version = dep.Path, version
				c.PackageURL = "pkg:golang/" + dep.Path + "@" + version + "?type=module"
				c.BOMRef = c.PackageURL
			}
		}
	}
	return bom, nil
}
