package main

import (
	"bytes"
	"encoding/pem"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// roots returns the certificates of public authorities, for forward to tls:// and the like. They are those of Mozilla,
// from a module of the Go project: go.sum pins them, so that an image depends on no machine's own. An authority that is
// trusted for old certificates only is left out, because a file of certificates cannot say so.
func roots() []byte {
	var file bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			// A buffer takes everything.
			_ = pem.Encode(&file, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})
		}
	}
	return file.Bytes()
}
