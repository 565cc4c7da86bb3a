package server

import (
	"errors"
	"slices"
	"testing"
)

func TestWithShaker(t *testing.T) {
	tests := []struct {
		name string
		in   []string
		want []string
		err  error
	}{
		{"in the middle", []string{"acl", "cache", "forward"}, []string{"acl", "shaker", "cache", "forward"}, nil},
		{"cache first", []string{"cache", "forward"}, []string{"shaker", "cache", "forward"}, nil},
		{"cache last", []string{"acl", "cache"}, []string{"acl", "shaker", "cache"}, nil},
		{"cache alone", []string{"cache"}, []string{"shaker", "cache"}, nil},
		{"a new neighbour", []string{"acl", "new", "cache"}, []string{"acl", "new", "shaker", "cache"}, nil},
		{"there already", []string{"acl", "shaker", "cache"}, []string{"acl", "shaker", "cache"}, nil},
		{"there already, elsewhere", []string{"shaker", "acl", "cache"}, []string{"shaker", "acl", "cache"}, nil},
		{"there already, no cache", []string{"shaker", "forward"}, []string{"shaker", "forward"}, nil},
		{"no cache", []string{"acl", "forward"}, nil, errNoCache},
		{"a name that only starts like it", []string{"cached"}, nil, errNoCache},
		{"empty", []string{}, nil, errNoCache},
		{"nil", nil, nil, errNoCache},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := slices.Clone(tt.in)
			got, err := withShaker(tt.in)
			if !errors.Is(err, tt.err) {
				t.Fatalf("withShaker(%q): error %v, want %v", tt.in, err, tt.err)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("withShaker(%q) = %q, want %q", tt.in, got, tt.want)
			}
			if !slices.Equal(tt.in, before) {
				t.Errorf("withShaker wrote to its argument: %q, was %q", tt.in, before)
			}
		})
	}
}

// A full slice with spare capacity is where an append in place would write into the caller's array.
func TestWithShakerLeavesSpareCapacityAlone(t *testing.T) {
	backing := []string{"acl", "cache", "forward", "whoami"}
	if _, err := withShaker(backing[:2]); err != nil {
		t.Fatal(err)
	}
	if want := []string{"acl", "cache", "forward", "whoami"}; !slices.Equal(backing, want) {
		t.Errorf("the array behind the argument is %q, want %q", backing, want)
	}
}

// What the tables say must hold for the CoreDNS that is linked, or shaker would stand where it cannot work.
func TestPlaceInThisCoreDNS(t *testing.T) {
	directives, err := Directives()
	if err != nil {
		t.Fatal(err)
	}
	shaker := slices.Index(directives, "shaker")
	if next := slices.Index(directives, "cache"); next != shaker+1 {
		t.Errorf("cache is at %d, shaker at %d, want it right before cache", next, shaker)
	}
	for _, above := range []string{"metadata", "prometheus", "log", "loadbalance", "rewrite", "dns64", "siit", "autopath", "acl"} {
		if i := slices.Index(directives, above); i < 0 || i > shaker {
			t.Errorf("%s is at %d, shaker at %d, want %s above shaker", above, i, shaker, above)
		}
	}
	for _, below := range []string{"header", "dnssec", "minimal", "template", "hosts", "file", "auto", "secondary", "forward"} {
		if slices.Index(directives, below) < shaker {
			t.Errorf("%s is not below shaker", below)
		}
	}
}
