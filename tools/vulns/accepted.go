package main

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

var vulnerabilityID = regexp.MustCompile(`^GO-\d{4}-\d+$`)

// parseAccepted returns dates with reasons by ID. Lines are "GO-2026-1234 2026-11-27 Reason."; empty lines and those that
// begin with # are comments.
func parseAccepted(list string) (map[string]string, error) {
	reasons := make(map[string]string)
	number := 0
	for line := range strings.Lines(list) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		id, rest, _ := strings.Cut(line, " ")
		date, reason, _ := strings.Cut(strings.TrimSpace(rest), " ")
		reason = strings.TrimSpace(reason)
		if !vulnerabilityID.MatchString(id) {
			return nil, fmt.Errorf("line %d: %q is no ID, want one such as GO-2026-1234", number, id)
		}
		if _, err := time.Parse(time.DateOnly, date); err != nil {
			return nil, fmt.Errorf("line %d: %s: %q is no date, want one such as 2026-11-27", number, id, date)
		}
		if reason == "" {
			return nil, fmt.Errorf("line %d: %s has no reason, want why it cannot hurt, or why it has to wait", number, id)
		}
		if _, twice := reasons[id]; twice {
			return nil, fmt.Errorf("line %d: %s is there twice", number, id)
		}
		reasons[id] = date + " " + reason
	}
	return reasons, nil
}
