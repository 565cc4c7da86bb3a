// Command image makes the container image of CoreDNS with shaker, without a container engine:
//
//	SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) image -name coredns-shaker -version v1.2.3 \
//		-revision $(git rev-parse HEAD) -out image.tar amd64=coredns-amd64 arm64=coredns-arm64
//
// It is the image that deploy/container/Dockerfile makes, for all platforms at once: a static program, the certificates of
// public authorities, the directory of the Corefile, and a user who is not root. With -raw, the program has the file
// capability that method raw needs.
//
// The file is an OCI image layout in a tar archive. It has a manifest.json too, for those docker engines that know no other.
// The same programs make the same file, on every machine. What is printed is the name of the image and its digest.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/semver"
)

func main() {
	if err := run(os.Args[1:], os.Getenv("SOURCE_DATE_EPOCH"), os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "image: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string, epoch string, stdout io.Writer) error {
	r, out, err := parse(args, epoch)
	if err != nil {
		return err
	}
	index, err := r.index()
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := writeArchive(&archive, index, r.reference(), r.created); err != nil {
		return err
	}
	if err := replaceFile(out, archive.Bytes()); err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s@%s\n", r.reference(), digest)
	return err
}

// replaceFile writes a file in full or not at all.
func replaceFile(path string, content []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // it has another name by then, unless something failed
	_, err = file.Write(content)
	if err := errors.Join(err, file.Chmod(0o644), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// release is what one image is made of.
type release struct {
	product
	version  string // v1.2.3
	revision string // the commit
	created  time.Time
	raw      bool
	programs map[string][]byte // by architecture
}

// reference returns the name under which engines keep the image.
func (r *release) reference() string {
	tag := r.version
	if r.raw {
		tag += "-raw"
	}
	return r.title + ":" + tag
}

var commit = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// parse reads the command line, and the programs that it names.
func parse(args []string, epoch string) (r *release, out string, err error) {
	r = new(release)
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main prints the error
	name := flags.String("name", "", "")
	flags.StringVar(&r.version, "version", "", "")
	flags.StringVar(&r.revision, "revision", "", "")
	flags.BoolVar(&r.raw, "raw", false, "")
	flags.StringVar(&out, "out", "", "")
	if err := flags.Parse(args); err != nil {
		return nil, "", fmt.Errorf("%w\nusage: image -name NAME -version VERSION -revision COMMIT [-raw] -out FILE amd64=PROGRAM arm64=PROGRAM", err)
	}
	if r.product, err = productOf(*name); err != nil {
		return nil, "", err
	}
	switch {
	case r.version != semver.Canonical(r.version) || r.version == "":
		return nil, "", fmt.Errorf("-version: %q is no version, want one such as v1.2.3 or v1.2.3-rc.1", r.version)
	case !commit.MatchString(r.revision):
		return nil, "", fmt.Errorf("-revision: %q is no commit, want all 40 digits, as git rev-parse HEAD prints them", r.revision)
	case r.raw && !r.hasRaw:
		return nil, "", fmt.Errorf("-raw: there is no such image of %s, want -name coredns-shaker", r.title)
	case out == "":
		return nil, "", errors.New("-out: want the file to write")
	}
	if r.created, err = parseEpoch(epoch); err != nil {
		return nil, "", err
	}
	r.programs, err = readPrograms(flags.Args(), r.product.main)
	return r, out, err
}

// parseEpoch reads the time that everything in the image has.
func parseEpoch(epoch string) (time.Time, error) {
	seconds, err := strconv.ParseUint(epoch, 10, 32)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %q is no time, want seconds since 1970, as git log -1 --format=%%ct prints them", epoch)
	}
	return time.Unix(int64(seconds), 0).UTC(), nil
}

// readPrograms reads what arguments such as amd64=PATH name.
func readPrograms(args []string, main string) (map[string][]byte, error) {
	programs := make(map[string][]byte)
	for _, arg := range args {
		architecture, path, ok := strings.Cut(arg, "=")
		if _, known := machines[architecture]; !ok || !known || path == "" {
			return nil, fmt.Errorf("%q names no program, want amd64=PATH or arm64=PATH", arg)
		}
		if programs[architecture] != nil {
			return nil, fmt.Errorf("%q is the second program for %s, want one", arg, architecture)
		}
		content, err := os.ReadFile(path)
		if err == nil {
			err = checkProgram(content, architecture, main)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", arg, err)
		}
		programs[architecture] = content
	}
	if len(programs) == 0 {
		return nil, errors.New("there is no program, want amd64=PATH, arm64=PATH or both")
	}
	return programs, nil
}
