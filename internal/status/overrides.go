package status

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/coredns-shaker/shaker/internal/override"
)

var overridesJSON = format{
	contentType: "application/json",
	parameters:  parametersNamed("page", "size"),
	write: func(to *bytes.Buffer, _ http.Header, subject *Subject, q *query, problem error) error {
		if problem != nil {
			return json.NewEncoder(to).Encode(failure{version, problem.Error()})
		}
		return json.NewEncoder(to).Encode(newOverrides(subject, q))
	},
}

// parametersNamed returns those of the parameters of the targets' page, in its order.
func parametersNamed(names ...string) []parameter {
	return slices.DeleteFunc(slices.Clone(targetsPage.parameters), func(p parameter) bool { return !slices.Contains(names, p.name) })
}

// overrides is what there is to tell of files, in the form that programs get.
type overrides struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`
	Matches int       `json:"matches"`
	Page    int       `json:"page"`
	Pages   int       `json:"pages"`
	Size    int       `json:"size"`
	// Replicas is how many share files at the moment, with this one, 0 where it decides alone.
	Replicas int    `json:"replicas,omitempty"`
	Files    []file `json:"files"`
}

type file struct {
	Path     string    `json:"path"`
	Modified time.Time `json:"modified"`
	Failed   bool      `json:"failed"`
	Error    string    `json:"error,omitempty"`
	Shared   bool      `json:"shared,omitempty"` // with other replicas
	Local    bool      `json:"local,omitempty"`  // kept from them
	Rules    []rule    `json:"rules"`
}

// newOverrides returns all files, with those of their rules in force that are on the page. Nearly always there is but one
// page.
func newOverrides(s *Subject, q *query) *overrides {
	o := &overrides{Version: version, Time: instant(s.Monitor.Now()), Page: q.page, Size: q.size, Files: []file{}}
	if q.given.Get("size") == "" {
		o.Size = maxPageSize
	}
	if s.Peers != nil {
		o.Replicas = s.countReplicas()
	}
	first := (o.Page - 1) * o.Size
	for _, f := range s.files() {
		known := f.Snapshot()
		row := file{
			Path:     f.AbsPath(),
			Modified: instant(known.Modified),
			Failed:   known.Problem != "",
			Error:    known.Problem,
			Shared:   s.Peers != nil && f.IsShared(),
			Local:    s.Peers != nil && !f.IsShared(),
			Rules:    []rule{},
		}
		from, to := first-o.Matches, first+o.Size-o.Matches // the page, as numbers of the rules in this file
		o.Matches += known.Rules.Size()
		for _, r := range within(known.Rules.Sorted(), from, to) {
			row.Rules = append(row.Rules, newRule(r, ""))
		}
		o.Files = append(o.Files, row)
	}
	o.Pages = max(1, (o.Matches+o.Size-1)/o.Size)
	return o
}

// countReplicas returns how many replicas can be heard, with this one.
func (s *Subject) countReplicas() (n int) {
	for _, m := range s.Peers.Report().Members {
		if m.Self || m.Alive {
			n++
		}
	}
	return n
}

// within returns the elements with these numbers, as far as there are some.
func within[E any](all []E, from, to int) []E {
	from, to = max(0, from), min(len(all), to)
	if from >= to {
		return nil
	}
	return all[from:to]
}

// files returns the files of the rules, each once, by their paths.
func (s *Subject) files() (all []*override.File) {
	for _, r := range s.Rules {
		if !slices.Contains(all, r.File) {
			all = append(all, r.File)
		}
	}
	slices.SortFunc(all, func(a, b *override.File) int { return cmp.Compare(a.AbsPath(), b.AbsPath()) })
	return all
}
