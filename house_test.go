package shaker

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// rooms are the packages of this module and which of the others each may import. Imports point one way only: every
// package may import only those above it in the list.
var rooms = []struct {
	name    string
	imports []string
	coredns bool // it may import CoreDNS, and caddy
}{
	{"checker", nil, false},
	{"internal/clock", nil, false},
	{"health", []string{"checker", "internal/clock"}, false},
	{"internal/prefix", nil, false},
	{"internal/least", nil, false},
	{"internal/octets", nil, false},
	{"internal/reread", nil, false},
	{"internal/override", []string{"internal/octets", "internal/prefix", "internal/reread"}, false},
	{"internal/answer", nil, false},
	{"internal/watch", nil, false},
	{"internal/events", []string{"internal/clock"}, false},
	{"internal/resolve", nil, false},
	{"internal/members", []string{"internal/reread"}, false},
	{"internal/peers", []string{"checker", "health", "internal/members", "internal/octets"}, false},
	{"internal/status", []string{"checker", "health", "internal/events", "internal/least", "internal/override", "internal/peers", "internal/prefix"}, false},
	{".", []string{"checker", "health", "internal/answer", "internal/events", "internal/least", "internal/override", "internal/peers", "internal/prefix", "internal/resolve", "internal/status",
		"internal/watch"}, true},
	{"cmd/internal/server", []string{"."}, true},
	{"cmd/coredns", []string{".", "cmd/internal/server"}, true},
	{"cmd/shaker", []string{"internal/override", "internal/prefix"}, false},
	{"cmd/synping", []string{"checker"}, false},
	// What follows is for tests only.
	{"internal/lab", nil, false},
	{"internal/oracle", []string{"checker", "health"}, false},
	{"test", []string{"."}, true},
	{"test/release", nil, false},
}

// A room imports what is drawn here, and nothing else of this module.
func TestImportsPointOneWay(t *testing.T) {
	known := make(map[string]int)
	for i, room := range rooms {
		known[room.name] = i
	}
	imported := make(map[string]map[string]bool)
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != "." && (strings.HasPrefix(entry.Name(), ".") || isModule(path)):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		room := filepath.ToSlash(filepath.Dir(path))
		i, drawn := known[room]
		if !drawn {
			t.Errorf("%s is a package that is not drawn here", room)
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			target, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if strings.HasPrefix(target, "github.com/coredns/") && !rooms[i].coredns {
				t.Errorf("%s imports %s, but knows nothing of CoreDNS", path, target)
			}
			target, ours := strings.CutPrefix(target, module)
			if !ours {
				continue
			}
			target = strings.TrimPrefix(target, "/")
			if target == "" {
				target = "."
			}
			if imported[room] == nil {
				imported[room] = make(map[string]bool)
			}
			imported[room][target] = true
			if !slices.Contains(rooms[i].imports, target) {
				t.Errorf("%s imports %s, which %s must not know", path, target, room)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, room := range rooms {
		for _, target := range room.imports {
			if j, drawn := known[target]; !drawn || j >= i {
				t.Errorf("%s may import %s, which is not above it", room.name, target)
			}
			if !imported[room.name][target] {
				t.Errorf("%s may import %s, but does not", room.name, target)
			}
		}
	}
}

// isModule tells whether a directory is a module of its own.
func isModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}
