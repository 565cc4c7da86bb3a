package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// entry is a file or, where its name ends in a slash, a directory. Each belongs to root, and others may only read it.
type entry struct {
	name         string
	mode         int64
	content      []byte
	capabilities []byte // security.capability, if it has any
}

// layerOf returns the layer of the entries, a directory before what is in it.
func layerOf(entries []entry, modified time.Time) (v1.Layer, error) {
	var compressed bytes.Buffer
	// Every engine takes gzip; zstd would be smaller by an eighth, and is for those of the last years only.
	z, err := gzip.NewWriterLevel(&compressed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if err := writeTar(z, entries, modified); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(compressed.Bytes())), nil }
	return tarball.LayerFromOpener(opener, tarball.WithMediaType(types.OCILayer))
}

// writeTar writes an archive that depends on the entries and the time alone.
func writeTar(w io.Writer, entries []entry, modified time.Time) error {
	archive := tar.NewWriter(w)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Mode: e.mode, Size: int64(len(e.content)), ModTime: modified, Format: tar.FormatUSTAR}
		if strings.HasSuffix(e.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if e.capabilities != nil {
			h.Format = tar.FormatPAX
			h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": string(e.capabilities)}
		}
		if err := archive.WriteHeader(h); err != nil {
			return err
		}
		if _, err := archive.Write(e.content); err != nil {
			return err
		}
	}
	return archive.Close()
}

// netRaw is the attribute security.capability of a file with cap_net_raw+ep: struct vfs_cap_data of the second version
// (include/uapi/linux/capability.h of the kernel), which is little endian everywhere.
func netRaw() []byte {
	const (
		revision2 = 0x02000000 // VFS_CAP_REVISION_2
		effective = 1          // VFS_CAP_FLAGS_EFFECTIVE
		number    = 13         // CAP_NET_RAW
	)
	data := binary.LittleEndian.AppendUint32(nil, revision2|effective)
	data = binary.LittleEndian.AppendUint32(data, 1<<number) // permitted
	return append(data, make([]byte, 3*4)...)                // inheritable, and both for capabilities from 32 on
}
