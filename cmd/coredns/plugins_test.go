package main

import (
	"go/parser"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"

	"github.com/coredns-shaker/shaker/cmd/internal/server"
)

// renamed holds the directives that are not called like the package they come from.
var renamed = map[string]string{"metrics": "prometheus", "onevent": "on"}

// linked returns the directives of the plugins that plugins.go imports.
func linked(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "plugins.go", nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, spec := range file.Imports {
		importPath, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		name := path.Base(importPath)
		if directive, ok := renamed[name]; ok {
			name = directive
		}
		names = append(names, name)
	}
	return names
}

// A directive that a Corefile may use needs both a place in the chain and a set-up function.
func TestEveryLinkedPluginIsKnown(t *testing.T) {
	directives, err := server.Directives()
	if err != nil {
		t.Fatal(err)
	}
	names := linked(t)
	if !slices.Contains(names, "shaker") {
		t.Error("shaker is not linked")
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			blocks, err := caddyfile.Parse("Corefile", strings.NewReader(".:53 {\n    "+name+"\n}\n"), directives)
			if err != nil {
				t.Fatal(err)
			}
			if len(blocks) != 1 || len(blocks[0].Tokens[name]) != 1 {
				t.Errorf("the Corefile was read as %+v, want one block with %s", blocks, name)
			}
			if _, err := caddy.DirectiveAction("dns", name); err != nil {
				t.Error(err)
			}
		})
	}
}

// A plugin that another one registers behind our back would have a set-up function that no import here explains.
func TestNothingElseIsLinked(t *testing.T) {
	names := linked(t)
	registered := 0
	for _, plugin := range caddy.ListPlugins()["others"] {
		name, ok := strings.CutPrefix(plugin, "dns.")
		if !ok {
			continue
		}
		registered++
		if !slices.Contains(names, name) {
			t.Errorf("%s is linked, but not by an import in plugins.go", name)
		}
	}
	if registered == 0 {
		t.Error("no plugin is registered")
	}
}
