// Command dashboard checks Grafana dashboards without a Grafana: every field of the dashboard, and of the panels and
// queries in it, against the types of its kind.
//
//	dashboard monitoring/grafana.json
//
// A field that its kind does not have, one that is missing and a value of the wrong type are errors.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: dashboard FILE...")
		os.Exit(2)
	}
	status := 0
	for _, name := range os.Args[1:] {
		if err := check(name); err != nil {
			fmt.Fprintf(os.Stderr, "dashboard: %s: %v\n", name, err)
			status = 1
		}
	}
	os.Exit(status)
}

func check(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	plugins.RegisterDefaultPlugins() // the kinds of panels and queries
	//lint:ignore SA1019 Grafana before 12 does not import the newer form.
	var d dashboard.Dashboard
	if err := failure(d.UnmarshalJSONStrict(text)); err != nil {
		return err
	}
	return errors.Join(d.Validate(), checkPanels(text))
}

// checkPanels does what Dashboard leaves out: it does not validate its panels, nor look closely at their fieldConfig.
func checkPanels(text []byte) error {
	var d struct{ Panels []json.RawMessage }
	if err := json.Unmarshal(text, &d); err != nil {
		return err
	}
	var errs []error
	for i, text := range d.Panels {
		var panel dashboard.Panel
		var source struct{ FieldConfig json.RawMessage }
		var config dashboard.FieldConfigSource
		for _, err := range []error{
			failure(panel.UnmarshalJSONStrict(text)),
			panel.Validate(),
			json.Unmarshal(text, &source),
			failure(config.UnmarshalJSONStrict(source.FieldConfig)),
		} {
			if err != nil && panel.Type != "row" {
				errs = append(errs, fmt.Errorf("panels[%d]: %w", i, err))
			}
		}
	}
	return errors.Join(errs...)
}

// failure returns err, or nil where it is a list of no errors.
func failure(err error) error {
	if list, ok := errors.AsType[cog.BuildErrors](err); ok && len(list) == 0 {
		return nil
	}
	return err
}
