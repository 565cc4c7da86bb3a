package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Media types of the OCI image specification (media-types.md).
const (
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// imageFile is a file in a tar archive.
type imageFile struct {
	*tar.Header
	content []byte
}

// readImageTar reads an archive in full.
func readImageTar(t *testing.T, r io.Reader) (files []imageFile) {
	t.Helper()
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, imageFile{h, content})
	}
}

// gunzipLayer reads what was compressed.
func gunzipLayer(t *testing.T, compressed []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// descriptor points at a blob (descriptor.md).
type descriptor struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Digest       string            `json:"digest"`
	Size         int               `json:"size"`
	Annotations  map[string]string `json:"annotations"`
	Platform     struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
	} `json:"platform"`
}

// imageLayout is an OCI image layout in a tar archive (image-layout.md).
type imageLayout struct {
	t        *testing.T
	files    map[string][]byte
	used     map[string]bool // blobs that something pointed at
	modified time.Time       // of every file
}

// image is that of one platform.
type image struct {
	descriptor
	Created      time.Time   `json:"created"`
	Architecture string      `json:"architecture"`
	OS           string      `json:"os"`
	Config       imageConfig `json:"config"`
	RootFS       struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`

	files []imageFile // of all layers, the lowest first
}

// imageConfig is how the program of an image is run (config.md).
type imageConfig struct {
	User         string
	ExposedPorts map[string]struct{}
	Env          []string
	Entrypoint   []string
	Cmd          []string
	WorkingDir   string
	Labels       map[string]string
}

// readLayout reads the files of an archive, each of which has to belong to nobody in particular.
func readLayout(t *testing.T, path string) *imageLayout {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	l := &imageLayout{t: t, files: make(map[string][]byte), used: make(map[string]bool)}
	var names []string
	for _, f := range readImageTar(t, file) {
		names = append(names, f.Name)
		if l.modified.IsZero() {
			l.modified = f.ModTime
		}
		if f.Uid != 0 || f.Gid != 0 || f.Uname != "" || f.Gname != "" || f.Mode&^0o755 != 0 || !f.ModTime.Equal(l.modified) {
			t.Errorf("%s: %s is of user %d %q, group %d %q, mode %o, from %v", path, f.Name, f.Uid, f.Uname, f.Gid, f.Gname, f.Mode, f.ModTime)
		}
		if f.Typeflag == tar.TypeReg {
			l.files[f.Name] = f.content
		}
	}
	if !slices.IsSorted(names) {
		t.Errorf("%s is not sorted: %q", path, names)
	}
	return l
}

// read reads a JSON file of the layout.
func (l *imageLayout) read(name string, to any) {
	l.t.Helper()
	if err := json.Unmarshal(l.files[name], to); err != nil {
		l.t.Fatalf("%s: %v: %s", name, err, l.files[name])
	}
}

// blob returns what a descriptor points at, which has its type, size and digest.
func (l *imageLayout) blob(d descriptor, mediaType string) (name string) {
	l.t.Helper()
	algorithm, hash, _ := strings.Cut(d.Digest, ":")
	name = "blobs/" + algorithm + "/" + hash
	content, ok := l.files[name]
	if got := imageDigest(content); !ok || got != d.Digest || len(content) != d.Size || d.MediaType != mediaType {
		l.t.Fatalf("%+v is there (%v) with the digest %s and the size %d, want the type %s", d, ok, got, len(content), mediaType)
	}
	l.used[name] = true
	return name
}

func imageDigest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// images returns the descriptor of the index, and the images in it by their architectures. It follows everything from
// index.json on.
func (l *imageLayout) images() (index descriptor, images map[string]*image) {
	l.t.Helper()
	var version struct{ ImageLayoutVersion string }
	if l.read("oci-layout", &version); version.ImageLayoutVersion != "1.0.0" {
		l.t.Errorf("oci-layout has %+v", version)
	}
	var top, all struct {
		SchemaVersion int
		MediaType     string
		Manifests     []descriptor
	}
	if l.read("index.json", &top); len(top.Manifests) != 1 || top.SchemaVersion != 2 || top.MediaType != mediaIndex {
		l.t.Fatalf("index.json has %+v, want one image", top)
	}
	index = top.Manifests[0]
	if l.read(l.blob(index, mediaIndex), &all); all.SchemaVersion != 2 || all.MediaType != mediaIndex {
		l.t.Fatalf("the index has %+v", all)
	}
	images = make(map[string]*image)
	for _, d := range all.Manifests {
		i := l.image(d)
		if i.OS != "linux" || d.Platform.OS != i.OS || d.Platform.Architecture != i.Architecture || images[i.Architecture] != nil {
			l.t.Errorf("an image for %s/%s is in the index for %+v", i.OS, i.Architecture, d.Platform)
		}
		if d.ArtifactType != "" {
			// skopeo, say, leaves it out of what it copies, which has another digest then.
			l.t.Errorf("the image for %s is called an artifact, %s", i.Architecture, d.ArtifactType)
		}
		images[i.Architecture] = i
	}
	return index, images
}

func (l *imageLayout) image(d descriptor) *image {
	l.t.Helper()
	var manifest struct {
		SchemaVersion int
		MediaType     string
		Config        descriptor
		Layers        []descriptor
	}
	if l.read(l.blob(d, mediaManifest), &manifest); manifest.SchemaVersion != 2 || manifest.MediaType != mediaManifest {
		l.t.Fatalf("a manifest has %+v", manifest)
	}
	i := &image{descriptor: d}
	l.read(l.blob(manifest.Config, mediaConfig), i)
	var unpacked []string
	for _, layer := range manifest.Layers {
		content := gunzipLayer(l.t, l.files[l.blob(layer, mediaLayer)])
		unpacked = append(unpacked, imageDigest(content))
		i.files = append(i.files, readImageTar(l.t, bytes.NewReader(content))...)
	}
	if i.RootFS.Type != "layers" || !slices.Equal(unpacked, i.RootFS.DiffIDs) {
		l.t.Errorf("the layers are %q, and the configuration has %+v", unpacked, i.RootFS)
	}
	return i
}

// program returns the program of an image.
func (i *image) program(t *testing.T) []byte {
	t.Helper()
	for _, f := range i.files {
		if f.Name == "coredns" {
			return f.content
		}
	}
	t.Fatalf("the image for %s has no program", i.Architecture)
	return nil
}

// imageVersion returns the version that is in the name of an artifact: v1.2.3 of NAME_1.2.3_image.tar.
func imageVersion(path string) string {
	return "v" + strings.Split(filepath.Base(path), "_")[1]
}
