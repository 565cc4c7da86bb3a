// Command package makes a Debian or RPM package of two programs that are built already:
//
//	SOURCE_DATE_EPOCH=1767225600 package -name coredns-shaker -version v1.2.3 -arch amd64 -binaries DIR -format deb -out FILE
//
// The programs in DIR are coredns and shaker. deploy/package/nfpm.yaml in the repository tells what else is in a package. The
// same input makes the same package, octet by octet; its only time is SOURCE_DATE_EPOCH, in seconds since 1970.
package main

import (
	"cmp"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

func main() {
	var o order
	flag.StringVar(&o.name, "name", "coredns-shaker", "`name` of the package")
	flag.StringVar(&o.version, "version", "", "`version` of the release: v1.2.3, or v1.2.3-rc.1 before it")
	flag.StringVar(&o.arch, "arch", "amd64", "`architecture` of the programs, as Go calls it")
	flag.StringVar(&o.binaries, "binaries", "", "`directory` with coredns and shaker")
	flag.StringVar(&o.format, "format", "deb", "`kind` of package: deb or rpm")
	flag.StringVar(&o.root, "root", "..", "root `directory` of the repository")
	out := flag.String("out", "", "`file` to make")
	printName := flag.Bool("print-name", false, "print the name that such a package has by convention, and make nothing")
	flag.Parse()
	o.epoch = os.Getenv("SOURCE_DATE_EPOCH")
	if err := run(o, *out, *printName, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "package:", err)
		os.Exit(1)
	}
}

func run(o order, out string, printName bool, more []string) error {
	if len(more) > 0 {
		return fmt.Errorf("%q is too much, want only flags", more)
	}
	if err := o.check(); err != nil {
		return err
	}
	if printName {
		name, err := o.conventionalName()
		if err == nil {
			fmt.Println(name)
		}
		return err
	}
	if out == "" {
		return errors.New("-out is missing, want the file to make")
	}
	return o.pack(out)
}

// order is what is to be packed, and how.
type order struct {
	name, version, arch, binaries, format, root string
	epoch                                       string // seconds since 1970
}

// other has the names of both packages, and which one takes the place of which.
var other = map[string]string{"coredns-shaker": "coredns-shaker-all", "coredns-shaker-all": "coredns-shaker"}

// plugins is the paragraph of the description by which the two differ.
var plugins = map[string]string{
	"coredns-shaker":     "It has the plugins of CoreDNS but those for clouds, Kubernetes, etcd,\n  Nomad and tracing, which the package coredns-shaker-all has as well.",
	"coredns-shaker-all": "It has all plugins of CoreDNS, those for clouds, Kubernetes and etcd among\n  them, and takes the place of the package coredns-shaker.",
}

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// The pre-release part has no hyphen: dpkg would take what is behind it for the revision of the package, and rpm allows none.
var versionPattern = regexp.MustCompile(`^v?(\d+\.\d+\.\d+(?:-[0-9A-Za-z]+(?:\.[0-9A-Za-z]+)*)?)$`)

// check tells what is wrong with an order. It leaves the version without its v.
func (o *order) check() error {
	if other[o.name] == "" {
		return fmt.Errorf("-name: %q is no package of ours, want %s", o.name, strings.Join(slices.Sorted(maps.Keys(other)), " or "))
	}
	if machines[o.arch] == 0 {
		return fmt.Errorf("-arch: %q is not packed, want %s", o.arch, strings.Join(slices.Sorted(maps.Keys(machines)), " or "))
	}
	if o.format != "deb" && o.format != "rpm" {
		return fmt.Errorf("-format: %q is not packed, want deb or rpm", o.format)
	}
	match := versionPattern.FindStringSubmatch(o.version)
	if match == nil {
		return fmt.Errorf("-version: %q fits no package, want v1.2.3 or v1.2.3-rc.1, with no hyphen but that one", o.version)
	}
	o.version = match[1]
	if seconds, err := strconv.ParseUint(o.epoch, 10, 32); err != nil || seconds == 0 {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %q is no time, want the seconds since 1970 of the commit", o.epoch)
	}
	return nil
}

func (o order) time() time.Time {
	seconds, _ := strconv.ParseInt(o.epoch, 10, 64) // checked
	return time.Unix(seconds, 0).UTC()
}

// checkProgram tells what is wrong with a program in the directory of programs.
func (o order) checkProgram(name string) error {
	path := filepath.Join(o.binaries, name)
	program, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("-binaries: %s: %w, want a program for Linux", path, err)
	}
	defer program.Close()
	if program.Machine != machines[o.arch] {
		return fmt.Errorf("-binaries: %s is for %v, want %v for %s", path, program.Machine, machines[o.arch], o.arch)
	}
	for _, part := range program.Progs {
		if part.Type == elf.PT_INTERP {
			return fmt.Errorf("-binaries: %s needs libraries, want one that was built with CGO_ENABLED=0", path)
		}
	}
	return nil
}

// pack makes the package, in full or not at all.
func (o order) pack(out string) error {
	for _, name := range []string{"coredns", "shaker"} {
		if err := o.checkProgram(name); err != nil {
			return err
		}
	}
	made, err := os.MkdirTemp("", "package")
	if err != nil {
		return err
	}
	defer os.RemoveAll(made)
	if err := o.makeFiles(made); err != nil {
		return err
	}
	info, err := o.info(made)
	if err != nil {
		return err
	}
	packager, err := nfpm.Get(o.format)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(out), ".package")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if err := packager.Package(info, file); err != nil {
		return err
	}
	if err := errors.Join(file.Chmod(0o644), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), out)
}

// info reads deploy/package/nfpm.yaml for an order, whose made files are in a directory.
func (o order) info(made string) (*nfpm.Info, error) {
	var unknown []error
	values := map[string]string{
		"NAME": o.name, "OTHER": other[o.name], "VERSION": o.version, "ARCH": o.arch, "PLUGINS": plugins[o.name],
		"ROOT": o.root, "BINARIES": o.binaries, "MADE": made, "PROVIDES": "",
	}
	if o.name == "coredns-shaker-all" {
		values["PROVIDES"] = values["OTHER"]
	}
	expand := func(name string) string {
		value, known := values[name]
		if !known && !strings.HasPrefix(name, "NFPM_") { // those are asked for passwords
			unknown = append(unknown, fmt.Errorf("nfpm.yaml: ${%s} is unknown, want one of %q", name, slices.Sorted(maps.Keys(values))))
		}
		return value
	}
	config, err := nfpm.ParseFileWithEnvMapping(filepath.Join(o.root, "deploy/package/nfpm.yaml"), expand)
	if err != nil {
		return nil, err
	}
	info, err := config.Get(o.format)
	if err != nil {
		return nil, err
	}
	for _, content := range info.Contents {
		content.Source, content.Destination = os.Expand(content.Source, expand), os.Expand(content.Destination, expand)
		setMode(content)
	}
	for _, script := range []*string{&info.Scripts.PreInstall, &info.Scripts.PostInstall, &info.Scripts.PreRemove, &info.Scripts.PostRemove} {
		*script = os.Expand(*script, expand)
	}
	info.MTime = o.time()
	info.DisableGlobbing = true
	return nfpm.WithDefaults(info), errors.Join(unknown...)
}

// setMode gives a file the mode that it has unless nfpm.yaml says otherwise, and not that in somebody's clone.
func setMode(content *files.Content) {
	if content.FileInfo == nil {
		content.FileInfo = &files.ContentFileInfo{}
	}
	mode := os.FileMode(0o644)
	if content.Type == files.TypeDir {
		mode = 0o755
	}
	content.FileInfo.Mode = cmp.Or(content.FileInfo.Mode, mode)
}

func (o order) conventionalName() (string, error) {
	info, err := o.info("")
	if err != nil {
		return "", err
	}
	packager, err := nfpm.Get(o.format)
	if err != nil {
		return "", err
	}
	return packager.ConventionalFileName(info), nil
}
