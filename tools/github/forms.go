package main

import (
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"k8s.io/apimachinery/pkg/util/yaml"
)

// form is an issue form, with the keys that are used here. Any other is an error, as it is to GitHub.
type form struct {
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Labels      []string `json:"labels"`
	Body        []struct {
		Type       string `json:"type"`
		ID         string `json:"id"`
		Attributes struct {
			Label       string `json:"label"`
			Description string `json:"description"`
			Placeholder string `json:"placeholder"`
			Render      string `json:"render"`
			Value       string `json:"value"`
		} `json:"attributes"`
		Validations *struct {
			Required bool `json:"required"`
		} `json:"validations"`
	} `json:"body"`
}

var fieldID = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func (c *checker) checkForm(text string) {
	var f form
	if err := yaml.UnmarshalStrict([]byte(text), &f); err != nil {
		c.problem("%v", err)
		return
	}
	if f.Name == "" || f.Description == "" {
		c.problem("it has no name or no description, and GitHub does not show it")
	}
	ids, labels := make(map[string]bool), make(map[string]bool)
	for i, field := range f.Body {
		a := field.Attributes
		switch field.Type {
		case "markdown":
			if a.Value == "" {
				c.problem("part %d has no value to show", i+1)
			}
			if field.Validations != nil {
				c.problem("part %d is shown only, and cannot be required", i+1)
			}
			continue
		case "textarea", "input":
		default:
			c.problem("part %d has the type %q, want markdown, textarea or input", i+1, field.Type)
		}
		if !fieldID.MatchString(field.ID) || ids[field.ID] {
			c.problem("part %d has the id %q, want one of letters, digits, - and _ that no other has", i+1, field.ID)
		}
		if a.Label == "" || labels[a.Label] {
			c.problem("part %d has the label %q, want one that no other has", i+1, a.Label)
		}
		if a.Render != "" && field.Type != "textarea" {
			c.problem("part %d has render, which only textarea can have", i+1)
		}
		ids[field.ID], labels[a.Label] = true, true
	}
	if len(ids) == 0 {
		c.problem("it asks for nothing")
	}
}

func (c *checker) checkConfig(text string) {
	var config struct {
		Blank bool `json:"blank_issues_enabled"`
		Links []struct {
			Name  string `json:"name"`
			URL   string `json:"url"`
			About string `json:"about"`
		} `json:"contact_links"`
	}
	if err := yaml.UnmarshalStrict([]byte(text), &config); err != nil {
		c.problem("%v", err)
		return
	}
	for _, link := range config.Links {
		if link.Name == "" || link.About == "" || !strings.HasPrefix(link.URL, "https://") {
			c.problem("the link %+v lacks a name, an about or a URL", link)
		}
	}
}

// home is where this repository is on GitHub. Links in forms have to be whole, because what is shown there is in no directory.
const home = "https://github.com/coredns-shaker/shaker/"

// checkLinks sees to it that links into this repository lead to something that is there.
func (c *checker) checkLinks(text string) {
	for _, link := range regexp.MustCompile(`https?://[^\s)"]+`).FindAllString(text, -1) {
		target, ours := strings.CutPrefix(link, home)
		if !ours {
			continue
		}
		path, anchor, _ := strings.Cut(strings.TrimPrefix(target, "blob/HEAD/"), "#")
		switch {
		case target == "security/policy":
			path = "SECURITY.md"
		case strings.HasPrefix(target, "issues/new?template="):
			path = ".github/ISSUE_TEMPLATE/" + strings.TrimPrefix(target, "issues/new?template=")
		case !strings.HasPrefix(target, "blob/HEAD/"):
			c.problem("%s: want blob/HEAD/PATH, security/policy or issues/new?template=FORM behind %s", link, home)
			continue
		}
		page, err := fs.ReadFile(c.root, path)
		if err != nil {
			c.problem("%s: %v", link, err)
		} else if anchor != "" && !slices.Contains(anchors(string(page)), anchor) {
			c.problem("%s: there is no such heading", link)
		}
	}
	for _, link := range regexp.MustCompile(`\]\(([^)]*)\)`).FindAllStringSubmatch(text, -1) {
		if !strings.HasPrefix(link[1], "https://") {
			c.problem("the link to %s is not whole, want https://...", link[1])
		}
	}
}

// anchors returns the names by which GitHub lets links point at the headings of a page.
func anchors(page string) (names []string) {
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		names = append(names, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			default:
				return -1
			}
		}, heading[1]))
	}
	return names
}

// checkCommands sees to it that our commands, and the properties of the Corefile, exist where a text names them.
func (c *checker) checkCommands(text string) {
	client, readme := c.read("cmd/shaker/README.md"), c.read("README.md")
	for _, span := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(text, -1) {
		words := strings.Fields(span[1])
		if len(words) == 0 {
			c.problem("%s: there is nothing in it", span[0])
			continue
		}
		switch program := words[0]; {
		case program == "shaker" && len(words) > 1:
			if !regexp.MustCompile("(?m)^\\* `shaker " + regexp.QuoteMeta(words[1]) + "[ `]").MatchString(client) {
				c.problem("`%s`: cmd/shaker/README.md has no such command", span[1])
			}
		case program == "shaker" || program == "synping" || program == "coredns":
			c.exists("cmd/" + program)
		case strings.HasPrefix(program, ".") || strings.HasPrefix(program, "docs/"):
			c.exists(strings.TrimPrefix(program, "./"))
		case len(words) == 1 && regexp.MustCompile(`^[a-z]+$`).MatchString(program):
			if !strings.Contains(readme, "`"+program) {
				c.problem("`%s`: README.md has no such property", program)
			}
		}
	}
}

func (c *checker) exists(path string) {
	if _, err := fs.Stat(c.root, path); err != nil {
		c.problem("it names what is not there: %v", err)
	}
}
