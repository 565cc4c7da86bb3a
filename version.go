package shaker

import (
	"cmp"
	"runtime/debug"
	"strings"
)

const module = "github.com/coredns-shaker/shaker"

// release is set by whoever builds from sources that git does not know, such as those in a package or an image:
//
//	go build -ldflags '-X github.com/coredns-shaker/shaker.release=v1.2.3' ./cmd/coredns
var release string

// Version returns the version of this plugin that is linked into the process: v1.2.3 of a release,
// v1.2.4-0.20260102030405-0123456789ab of a commit after it, with +dirty if there were changes that are not committed,
// and (devel) where the build did not say.
func Version() string {
	info, _ := debug.ReadBuildInfo()
	return versionOf(release, info)
}

// versionOf looks for this module in what the linker knew. It is the main one in our own coredns, and a dependency in
// a CoreDNS that others have built. In coredns-all it is a dependency too, but from the directory above: then both are of
// one commit, and the version of that is with the main one.
func versionOf(release string, info *debug.BuildInfo) string {
	version := release
	if info != nil && version == "" {
		for _, m := range append(info.Deps, &info.Main) {
			if m.Path != module {
				continue
			}
			if m.Replace != nil {
				m = m.Replace // by a directory it has no version
			}
			if m.Path == "../.." && strings.HasPrefix(info.Main.Path, module+"/cmd/") {
				m = &info.Main
			}
			version = m.Version
		}
	}
	return cmp.Or(version, "(devel)")
}
