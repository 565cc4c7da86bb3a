package shaker

import (
	"runtime/debug"
	"testing"
)

func TestVersionOf(t *testing.T) {
	coredns := debug.Module{Path: "github.com/coredns/coredns", Version: "v1.15.0"}
	ours := func(version string) debug.Module { return debug.Module{Path: module, Version: version} }
	replaced := ours("v0.0.0")
	replaced.Replace = &debug.Module{Path: "/src/shaker"}
	forked := ours("v1.0.0")
	forked.Replace = &debug.Module{Path: "example.org/shaker", Version: "v1.0.1"}
	// What go build knows of coredns-all. The directory has no version, or this one.
	all := debug.Module{Path: module + "/cmd/coredns-all", Version: "v1.2.3+dirty"}
	above, beside := ours("v0.0.0"), ours("v0.0.0")
	above.Replace = &debug.Module{Path: "../..", Version: "(devel)"}
	beside.Replace = &debug.Module{Path: "../../../shaker", Version: "(devel)"}
	for _, tt := range []struct {
		name    string
		release string
		info    *debug.BuildInfo
		want    string
	}{
		{"no information", "", nil, "(devel)"},
		{"told by the linker", "v1.2.3", nil, "v1.2.3"},
		{"told by the linker, in a checkout", "v1.2.3", &debug.BuildInfo{Main: ours("v0.0.0-1-abc")}, "v1.2.3"},
		{"a checkout", "", &debug.BuildInfo{Main: ours("v1.2.3+dirty"), Deps: []*debug.Module{&coredns}}, "v1.2.3+dirty"},
		{"a checkout without git", "", &debug.BuildInfo{Main: ours("(devel)")}, "(devel)"},
		{"a test", "", &debug.BuildInfo{Main: ours("")}, "(devel)"},
		{"a dependency", "", &debug.BuildInfo{Main: coredns, Deps: []*debug.Module{new(ours("v1.2.3"))}}, "v1.2.3"},
		{"a dependency from a directory", "", &debug.BuildInfo{Main: coredns, Deps: []*debug.Module{&replaced}}, "(devel)"},
		{"a dependency from a fork", "", &debug.BuildInfo{Main: coredns, Deps: []*debug.Module{&forked}}, "v1.0.1"},
		{"a nested module", "", &debug.BuildInfo{Main: all, Deps: []*debug.Module{&coredns, &above}}, "v1.2.3+dirty"},
		{"a nested module, told by the linker", "v1.2.3", &debug.BuildInfo{Main: all, Deps: []*debug.Module{&above}}, "v1.2.3"},
		{"a nested module from another directory", "", &debug.BuildInfo{Main: all, Deps: []*debug.Module{&beside}}, "(devel)"},
		{"somebody else's, two directories above", "", &debug.BuildInfo{Main: coredns, Deps: []*debug.Module{&above}}, "(devel)"},
		{"not there", "", &debug.BuildInfo{Main: coredns}, "(devel)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := versionOf(tt.release, tt.info); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
