package main

import (
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// writeArchive writes the image as an OCI image layout (image-layout.md of the OCI image specification) in a tar archive.
func writeArchive(w io.Writer, index v1.ImageIndex, reference string, modified time.Time) error {
	files := make(map[string][]byte)
	loaded, err := addImages(files, index, reference)
	if err != nil {
		return err
	}
	raw, err := index.RawManifest()
	if err != nil {
		return err
	}
	digest, size, err := v1.SHA256(strings.NewReader(string(raw)))
	if err != nil {
		return err
	}
	files[blob(digest)] = raw
	_, tag, _ := strings.Cut(reference, ":")
	for name, value := range map[string]any{
		"oci-layout": map[string]string{"imageLayoutVersion": "1.0.0"},
		"index.json": v1.IndexManifest{
			SchemaVersion: 2,
			MediaType:     types.OCIImageIndex,
			Manifests: []v1.Descriptor{{MediaType: types.OCIImageIndex, Digest: digest, Size: size, Annotations: map[string]string{
				// The name in full, as containerd, docker and podman keep what docker build calls by the short one.
				"io.containerd.image.name":          "docker.io/library/" + reference,
				"org.opencontainers.image.ref.name": tag,
			}}},
		},
		"manifest.json": loaded,
	} {
		if files[name], err = json.Marshal(value); err != nil {
			return err
		}
	}
	entries := []entry{{name: "blobs/", mode: 0o755}, {name: "blobs/sha256/", mode: 0o755}}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		entries = append(entries, entry{name: name, mode: 0o644, content: files[name]})
	}
	return writeTar(w, entries, modified)
}

// blob returns the name of a blob in the layout.
func blob(digest v1.Hash) string { return "blobs/" + digest.Algorithm + "/" + digest.Hex }

// dockerImage is an image in manifest.json, the only file that docker looks for unless it keeps images by containerd.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// addImages adds the blobs of all images to the files, and returns what manifest.json says of them. A docker engine that
// reads that file cannot keep several architectures under one name: the first has the name of the image, and the others
// have theirs added to it.
func addImages(files map[string][]byte, index v1.ImageIndex, reference string) (loaded []dockerImage, err error) {
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for i, d := range manifest.Manifests {
		image, err := index.Image(d.Digest)
		if err != nil {
			return nil, err
		}
		l, err := addImage(files, d.Digest, image)
		if err != nil {
			return nil, err
		}
		name := reference
		if i > 0 {
			name += "-" + d.Platform.Architecture
		}
		l.RepoTags = []string{name}
		loaded = append(loaded, l)
	}
	return loaded, nil
}

func addImage(files map[string][]byte, digest v1.Hash, image v1.Image) (l dockerImage, err error) {
	if files[blob(digest)], err = image.RawManifest(); err != nil {
		return l, err
	}
	config, err := image.ConfigName()
	if err != nil {
		return l, err
	}
	l.Config = blob(config)
	if files[l.Config], err = image.RawConfigFile(); err != nil {
		return l, err
	}
	layers, err := image.Layers()
	if err != nil {
		return l, err
	}
	for _, layer := range layers {
		digest, err := layer.Digest()
		if err != nil {
			return l, err
		}
		compressed, err := layer.Compressed()
		if err != nil {
			return l, err
		}
		if files[blob(digest)], err = io.ReadAll(compressed); err != nil {
			return l, err
		}
		l.Layers = append(l.Layers, blob(digest))
	}
	return l, nil
}
