package status

import (
	"bytes"
	"net/http"
	"strconv"
	"time"
)

var overridesPage = format{
	contentType: "text/html; charset=utf-8",
	parameters:  parametersNamed("page", "size", "refresh"),
	write: func(to *bytes.Buffer, header http.Header, subject *Subject, q *query, problem error) error {
		p := &overridesView{frame: subject.frame(header, "overrides", "/overrides", q, problem)}
		p.JSON = "overrides.json?" + q.kept("size").Encode()
		if problem == nil {
			p.overrides = newOverrides(subject, q)
		}
		return pageTemplates().ExecuteTemplate(to, "overrides.html", p)
	},
}

// overridesView is what the page of overrides shows.
type overridesView struct {
	frame
	*overrides // nil where something is wrong with the query
}

// Turn links to another page, if it exists.
func (p *overridesView) Turn(by int) string {
	page := min(p.Page+by, p.Pages)
	if page < 1 || page == p.Page {
		return ""
	}
	return p.Query.link("page", strconv.Itoa(page))
}

// End is when the rule ends.
func (r rule) End(now time.Time) string { return shortTime(r.Until, now) }

// Said is when the line was first seen.
func (r rule) Said(now time.Time) string { return shortTime(r.Since, now) }

// Left tells how long it is until then.
func (r rule) Left(now time.Time) string { return span(r.Until.Sub(now)) }
