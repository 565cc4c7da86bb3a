package shaker

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
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

// The picture in CONTRIBUTING.md has all rooms, with an arrow for each import that does not follow from other arrows.
func TestHousePicture(t *testing.T) {
	_, rest, _ := strings.Cut(readFile(t, "CONTRIBUTING.md"), "```house\n")
	picture, _, _ := strings.Cut(rest, "```\n")
	drawn, err := readHouse(picture)
	if err != nil {
		t.Fatalf("the picture in CONTRIBUTING.md: %v", err)
	}
	imports := make(map[string][]string)
	for _, room := range rooms {
		imports[room.name] = room.imports
	}
	for _, room := range rooms {
		targets, ok := drawn[room.name]
		if !ok {
			t.Errorf("the picture in CONTRIBUTING.md lacks the room %s", room.name)
			continue
		}
		delete(drawn, room.name)
		var want []string
		for _, target := range room.imports {
			follows := slices.ContainsFunc(room.imports, func(between string) bool { return leadsTo(imports, between, target) })
			if !follows {
				want = append(want, target)
			}
		}
		slices.Sort(targets)
		slices.Sort(want)
		if !slices.Equal(targets, want) {
			t.Errorf("the picture in CONTRIBUTING.md has arrows from %s to %q, want them to %q", room.name, targets, want)
		}
	}
	for room := range drawn {
		t.Errorf("the picture in CONTRIBUTING.md has the room %s, which is not drawn here", room)
	}
}

// leadsTo tells whether there are imports that lead from a room to another one.
func leadsTo(imports map[string][]string, from, to string) bool {
	return slices.ContainsFunc(imports[from], func(next string) bool { return next == to || leadsTo(imports, next, to) })
}

// readHouse reads a picture of rooms, and returns to which others each has arrows. An arrow begins at the room to its left,
// or where there is none, at that whose arrows branch off above:
//
//	health ─┬─▶ checker
//	        └─▶ internal/clock
func readHouse(picture string) (map[string][]string, error) {
	drawn := make(map[string][]string)
	branches := make(map[int]string) // rooms by the columns at which their arrows branch off
	step := regexp.MustCompile(`(?:([─┬├└])─▶ )?([a-z./]+)`)
	for line := range strings.Lines(picture) {
		from := ""
		for _, at := range step.FindAllStringSubmatchIndex(line, -1) {
			joint, room := "", line[at[4]:at[5]]
			column := utf8.RuneCountInString(line[:at[0]])
			if at[2] >= 0 {
				joint = line[at[2]:at[3]]
			}
			switch joint {
			case "┬":
				branches[column] = from
			case "├", "└":
				from = branches[column]
			}
			if (from == "") != (joint == "") {
				return nil, fmt.Errorf("%s is neither at the end of an arrow nor the first in its line, %q", room, line)
			}
			drawn[room] = append(drawn[room], []string{}...)
			if from != "" {
				drawn[from] = append(drawn[from], room)
			}
			from = room
		}
	}
	return drawn, nil
}

// The files that CONTRIBUTING.md sends people to exist: at the root, or in a directory that is named beside them.
func TestHouseSigns(t *testing.T) {
	_, rest, _ := strings.Cut(readFile(t, "CONTRIBUTING.md"), "## Where to put what\n")
	table, _, _ := strings.Cut(rest, "\n## ")
	code, file := regexp.MustCompile("`([^`]+)`"), regexp.MustCompile(`^[A-Za-z_/]+\.(?:go|md|yml|json)$`)
	signs := 0
	for row := range strings.Lines(table) {
		dirs := []string{"."}
		for _, match := range code.FindAllStringSubmatch(row, -1) {
			if info, err := os.Stat(match[1]); err == nil && info.IsDir() {
				dirs = append(dirs, match[1])
			} else if err == nil {
				dirs = append(dirs, filepath.Dir(match[1]))
			}
		}
		for _, match := range code.FindAllStringSubmatch(row, -1) {
			name := match[1]
			if !file.MatchString(name) || strings.HasPrefix(name, "NAME") {
				continue
			}
			signs++
			exists := func(dir string) bool {
				_, err := os.Stat(filepath.Join(dir, name))
				return err == nil
			}
			if !slices.ContainsFunc(dirs, exists) {
				t.Errorf("CONTRIBUTING.md sends to %s, which is in none of %q", name, dirs)
			}
		}
	}
	if signs == 0 {
		t.Error("CONTRIBUTING.md sends nobody anywhere")
	}
}

// isModule tells whether a directory is a module of its own.
func isModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}
