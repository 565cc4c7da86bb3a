package status

import (
	"bytes"
	"net/http"
	"strings"
)

var explainPage = format{
	contentType: "text/html; charset=utf-8",
	parameters:  explainParameters,
	ask:         askExplain,
	write: func(to *bytes.Buffer, header http.Header, subject *Subject, q *query, problem error) error {
		q.Refresh = 0 // each time the plugins below would be asked
		p := &explained{frame: subject.frame(header, "explain", "/explain", q, problem), Explanation: q.explanation}
		p.Still = true
		if q.question.Name != "" && problem == nil {
			p.JSON = "explain.json?" + q.kept("name", "type", "client", "dnssec", "server").Encode()
		}
		return pageTemplates().ExecuteTemplate(to, "explain.html", p)
	},
}

// explained is what the page shows. Without a question it is only the form.
type explained struct {
	frame
	*Explanation
}

// Types are what the form offers.
func (p *explained) Types() []string { return explainTypeNames() }

// IsType tells whether the form has a type chosen.
func (p *explained) IsType(name string) bool { return strings.EqualFold(p.Value("type"), name) }

// IsShort tells whether there is room to show all steps at once.
func (s ExplainedSet) IsShort() bool { return len(s.Members) <= 8 }

// Titled is an RRset as people name it.
func (s ExplainedSet) Titled() string {
	titled := s.Name + " " + s.Type
	if s.Section != "answer" {
		titled += ", " + s.Section + " section"
	}
	return titled
}
