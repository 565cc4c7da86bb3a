package status

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/coredns-shaker/shaker/health"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// docs/status.md lists the fields of the JSON and the parameters, in their order.
func TestDocumentedFields(t *testing.T) {
	expectTables(t, "../../docs/status.md", []reflect.Type{
		reflect.TypeFor[view](), reflect.TypeFor[target](), reflect.TypeFor[Observer](),
		reflect.TypeFor[group](), reflect.TypeFor[member](), reflect.TypeFor[join](), reflect.TypeFor[traffic](),
	}, targetsPage.parameters)
	for _, m := range meanings {
		lab.ExpectWords(t, "../../docs/status.md", "*"+m.Words+"*")
	}
}

// docs/overrides.md lists those of the overrides.
func TestDocumentedOverrides(t *testing.T) {
	expectTables(t, "../../docs/overrides.md", []reflect.Type{reflect.TypeFor[overrides](), reflect.TypeFor[file](), reflect.TypeFor[rule]()},
		overridesPage.parameters)
	lab.ExpectWords(t, "../../docs/overrides.md",
		fmt.Sprintf("from 1, the default, to %d", maxPage),
		fmt.Sprintf("from 1 to %d, by default %d", maxPageSize, maxPageSize),
	)
}

// expectTables checks that a page of the documentation has a row for each of these fields of JSON, then for each of these
// parameters, and no other rows that begin with code.
func expectTables(t *testing.T, path string, objects []reflect.Type, parameters []parameter) {
	t.Helper()
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| (`[^|]*`) \\|")
	var got, want []string
	for _, match := range rows.FindAllStringSubmatch(string(page), -1) {
		got = append(got, strings.Split(strings.Trim(match[1], "`"), "`, `")...)
	}
	for _, fields := range objects {
		for field := range fields.Fields() {
			tag, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			want = append(want, tag)
		}
	}
	for _, p := range parameters {
		want = append(want, p.name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s has\n%q, want\n%q", path, got, want)
	}
}

// The numbers in docs/status.md are those of the code.
func TestDocumentedNumbers(t *testing.T) {
	lab.ExpectWords(t, "../../docs/status.md",
		fmt.Sprintf("loads itself again every %d seconds", refreshEvery),
		fmt.Sprintf("from 1, the default, to %d; the one", maxPage),
		fmt.Sprintf("targets on a page, from 1 to %d, by default %d", maxPageSize, pageSize),
		fmt.Sprintf("| array | %d slots", health.HistorySlots),
		fmt.Sprintf("No more than %d clients are served at a time; one who takes more than %.0f seconds to ask or %.0f seconds to read",
			maxConnections, readTimeout.Seconds(), writeTimeout.Seconds()),
		fmt.Sprintf("requests are bounded to %d KiB", (maxHeader+4096)>>10),
	)
}

// docs/explain.md lists the fields of its JSON and the parameters, in their order.
func TestDocumentedExplanation(t *testing.T) {
	expectTables(t, "../../docs/explain.md", []reflect.Type{
		reflect.TypeFor[Explanation](), reflect.TypeFor[Explained](), reflect.TypeFor[ExplainedSet](), reflect.TypeFor[ExplainedMember](),
		reflect.TypeFor[ExplainedAddress](), reflect.TypeFor[ExplainedPort](),
	}, explainParameters)
}
