package main

import (
	"fmt"
	"maps"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const source = "https://github.com/coredns-shaker/shaker"

// product is a program that we have images of.
type product struct {
	title       string // and the name of the image
	description string
	main        string // the import path of the program
	hasRaw      bool   // there is an image of it for method raw
}

var products = []product{
	{"coredns-shaker", "CoreDNS with shaker, which keeps dead addresses out of DNS answers",
		"github.com/coredns-shaker/shaker/cmd/coredns", true},
	{"coredns-shaker-all", "CoreDNS with all its plugins and shaker, which keeps dead addresses out of DNS answers",
		"github.com/coredns-shaker/shaker/cmd/coredns-all", false},
}

func productOf(name string) (product, error) {
	for _, p := range products {
		if p.title == name {
			return p, nil
		}
	}
	return product{}, fmt.Errorf("-name: there is no image %q, want %s or %s", name, products[0].title, products[1].title)
}

// config returns how the program is run. deploy/container/Dockerfile says the same, which a test compares.
func (r *release) config() v1.Config {
	return v1.Config{
		// As "nonroot" elsewhere. With a name, Kubernetes could not tell that it is not root.
		User: "65532:65532",
		// An image without a Corefile: with one, a volume that somebody forgot would not be noticed.
		WorkingDir:   "/etc/coredns",
		ExposedPorts: map[string]struct{}{"53/tcp": {}, "53/udp": {}},
		Entrypoint:   []string{"/coredns"},
		Cmd:          []string{"-conf", "/etc/coredns/Corefile"},
		Labels:       r.labels(),
	}
}

// labels returns what the image tells of itself, by the keys of the OCI image specification (annotations.md).
func (r *release) labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":         r.title,
		"org.opencontainers.image.description":   r.description,
		"org.opencontainers.image.licenses":      "Apache-2.0",
		"org.opencontainers.image.source":        source,
		"org.opencontainers.image.documentation": source + "/blob/main/docs/deployment.md",
		"org.opencontainers.image.version":       r.version,
		"org.opencontainers.image.revision":      r.revision,
		"org.opencontainers.image.created":       r.created.Format(time.RFC3339),
	}
}

// surroundings are the files that do not depend on the architecture.
func surroundings() []entry {
	return []entry{
		{name: "etc/", mode: 0o755},
		{name: "etc/coredns/", mode: 0o755},
		{name: "etc/ssl/", mode: 0o755},
		{name: "etc/ssl/certs/", mode: 0o755},
		{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, content: roots()},
	}
}

func (r *release) program(architecture string) entry {
	e := entry{name: "coredns", mode: 0o755, content: r.programs[architecture]}
	if r.raw {
		e.capabilities = netRaw()
	}
	return e
}

// index returns the images of all architectures as one.
func (r *release) index() (v1.ImageIndex, error) {
	base, err := layerOf(surroundings(), r.created)
	if err != nil {
		return nil, err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, architecture := range slices.Sorted(maps.Keys(r.programs)) {
		top, err := layerOf([]entry{r.program(architecture)}, r.created)
		if err != nil {
			return nil, err
		}
		image, err := r.image(architecture, base, top)
		if err != nil {
			return nil, err
		}
		platform := v1.Platform{OS: "linux", Architecture: architecture}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: plain{image}, Descriptor: v1.Descriptor{Platform: &platform}})
	}
	// Registries show what the index says, and engines what the configuration does.
	return mutate.Annotations(index, r.labels()).(v1.ImageIndex), nil
}

// plain is an image that is no artifact of another kind. The index would call each an artifact of the type of its
// configuration, and a copy would lose that, and with it the digest.
type plain struct{ v1.Image }

// ArtifactType returns nothing.
func (plain) ArtifactType() (string, error) { return "", nil }

func (r *release) image(architecture string, base, top v1.Layer) (v1.Image, error) {
	created := v1.Time{Time: r.created}
	image, err := mutate.ConfigFile(
		mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON),
		&v1.ConfigFile{OS: "linux", Architecture: architecture, Created: created, Config: r.config(), RootFS: v1.RootFS{Type: "layers"}})
	if err != nil {
		return nil, err
	}
	with := ""
	if r.raw {
		with = " with cap_net_raw"
	}
	step := func(text string) v1.History { return v1.History{Created: created, CreatedBy: text} }
	return mutate.Append(image,
		mutate.Addendum{Layer: base, History: step("certificates of public authorities, and /etc/coredns for the Corefile")},
		mutate.Addendum{Layer: top, History: step(r.main + with)})
}
