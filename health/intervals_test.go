package health

import (
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/internal/lab"
)

// The formulas of docs/intervals.md.

func refusalTime(s Settings) time.Duration {
	return s.Interval + time.Duration(s.Fall-1)*s.Fast
}

func silenceTime(s Settings) time.Duration {
	return s.Interval + time.Duration(s.Fall-1)*max(s.Fast, s.Timeout) + s.Timeout
}

func recoveryTime(s Settings) time.Duration {
	return s.Interval + time.Duration(s.Rise-1)*s.Fast
}

func ignoredRefusals(s Settings) time.Duration { return time.Duration(s.Fall-1) * (s.Fast - s.Fast/5) }

func ignoredSilence(s Settings) time.Duration {
	sent := synsOf(s)
	return time.Duration(s.Fall-1)*max(s.Fast-s.Fast/5, s.Timeout) + sent[len(sent)-1]
}

// synsOf returns when the SYNs of a probe are sent: its tries, and the repetitions of each.
func synsOf(s Settings) []time.Duration { return synsInTime(s, 0) }

// synsInTime returns when those SYNs of a probe are sent whose answers come in time, if the round trip takes that long.
func synsInTime(s Settings, rtt time.Duration) (at []time.Duration) {
	for try := range s.Tries {
		for _, seconds := range []time.Duration{0, 1, 2, 3, 4, 5, 7, 11, 19, 35} {
			if t := time.Duration(try)*s.spacing(rtt) + seconds*time.Second; t+rtt < s.Timeout {
				at = append(at, t)
			}
		}
	}
	slices.Sort(at)
	return at
}

func falseDownsInADay(s Settings, loss float64, rtt time.Duration) float64 {
	f := math.Pow(1-(1-loss)*(1-loss), float64(len(synsInTime(s, rtt))))
	return 24 * 3600 * checksPerSecond(s) * math.Pow(f, float64(s.Fall))
}

func checksPerSecond(s Settings) float64 { return 1 / (0.9 * s.Interval.Seconds()) }

// silentTargets returns how many targets that are down and silent can be probed in time with MethodSocket.
func silentTargets(s Settings, openFiles float64) float64 {
	places := min(openFiles/2, 16384) / 2
	return places / (checksPerSecond(s) * s.Timeout.Seconds())
}

// intervalsRow is a row of a table in docs/intervals.md, by column.
type intervalsRow map[string]string

// roundTrip is as the row gives it, 0 where it gives none.
func (r intervalsRow) roundTrip() time.Duration {
	d, err := time.ParseDuration(r["round trip"])
	if err != nil {
		return 0
	}
	return d
}

// intervalsColumns are the columns that are computed.
var intervalsColumns = map[string]func(Settings, intervalsRow) string{
	"refuses":          func(s Settings, _ intervalsRow) string { return refusalTime(s).String() },
	"is silent":        func(s Settings, _ intervalsRow) string { return silenceTime(s).String() },
	"back":             func(s Settings, _ intervalsRow) string { return recoveryTime(s).String() },
	"refusals ignored": func(s Settings, _ intervalsRow) string { return ignoredRefusals(s).String() },
	"silence ignored":  func(s Settings, _ intervalsRow) string { return ignoredSilence(s).String() },
	"false downs": func(s Settings, r intervalsRow) string {
		return rounded(1000 * falseDownsInADay(s, percent(r["loss"]), 0))
	},
	"1 % lost":        falseDownsColumn(0.01),
	"2 % lost":        falseDownsColumn(0.02),
	"5 % lost":        falseDownsColumn(0.05),
	"10 % lost":       falseDownsColumn(0.10),
	"20 % lost":       falseDownsColumn(0.20),
	"100ms bursts":    burstsColumn(100 * time.Millisecond),
	"300ms bursts":    burstsColumn(300 * time.Millisecond),
	"1s bursts":       burstsColumn(time.Second),
	"3s bursts":       burstsColumn(3 * time.Second),
	"all tries up to": func(s Settings, _ intervalsRow) string { return (s.spacing(0) / 2).String() },
	"SYNs in time":    func(s Settings, r intervalsRow) string { return strconv.Itoa(len(synsInTime(s, r.roundTrip()))) },
	"checks a second": func(s Settings, r intervalsRow) string {
		return rounded(number(r["targets"], 1000) * checksPerSecond(s))
	},
	"kbit/s out, socket": func(s Settings, r intervalsRow) string {
		return rounded(number(r["targets"], 0) * checksPerSecond(s) * (60 + 52) * 8 / 1000)
	},
	"kbit/s out, raw": func(s Settings, r intervalsRow) string {
		return rounded(number(r["targets"], 0) * checksPerSecond(s) * (44 + 40) * 8 / 1000)
	},
	"silent targets": func(s Settings, r intervalsRow) string { return rounded(silentTargets(s, number(r["open files"], 0))) },
}

func falseDownsColumn(loss float64) func(Settings, intervalsRow) string {
	return func(s Settings, r intervalsRow) string {
		return rounded(1000 * falseDownsInADay(s, loss, r.roundTrip()))
	}
}

// rounded writes a number with two significant digits.
func rounded(x float64) string {
	const least = 0.001
	if x < least {
		return "< 0.001"
	}
	if digits := 1 - int(math.Floor(math.Log10(x))); digits > 0 {
		scale := math.Pow10(digits)
		x = math.Round(x*scale) / scale
	} else {
		unit := math.Pow10(-digits)
		x = math.Round(x/unit) * unit
	}
	return strconv.FormatFloat(x, 'f', -1, 64)
}

func number(cell string, otherwise float64) float64 {
	if n, err := strconv.ParseFloat(cell, 64); err == nil {
		return n
	}
	return otherwise
}

func percent(cell string) float64 { return number(strings.TrimSuffix(cell, " %"), math.NaN()) / 100 }

// intervalsTables returns the rows of all tables in docs/intervals.md that have this column.
func intervalsTables(t *testing.T, column string) (rows []intervalsRow) {
	t.Helper()
	text, err := os.ReadFile("../docs/intervals.md")
	if err != nil {
		t.Fatal(err)
	}
	var columns []string
	for line := range strings.SplitSeq(string(text), "\n") {
		if !strings.HasPrefix(line, "|") {
			columns = nil
			continue
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.TrimSpace(cell))
		}
		switch {
		case columns == nil:
			columns = cells
		case len(cells) != len(columns):
			t.Fatalf("%d cells, want %d: %s", len(cells), len(columns), line)
		case cells[0] != "---":
			row := intervalsRow{}
			for i, cell := range cells {
				row[columns[i]] = cell
			}
			if row[column] != "" {
				rows = append(rows, row)
			}
		}
	}
	return rows
}

// intervalsSettings reads settings as docs/intervals.md writes them.
func intervalsSettings(t *testing.T, cell string) Settings {
	t.Helper()
	fields := strings.Fields(strings.Trim(cell, "`"))
	if len(fields) != 11 || fields[0] != "interval" || fields[3] != "timeout" || fields[5] != "tries" || fields[7] != "rise" || fields[9] != "fall" {
		t.Fatalf("%q is no settings", cell)
	}
	count := func(field string) int {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return Settings{
		Interval: intervalsDuration(t, fields[1]), Fast: intervalsDuration(t, fields[2]), Timeout: intervalsDuration(t, fields[4]),
		Tries: count(fields[6]), Rise: count(fields[8]), Fall: count(fields[10]),
	}
}

func intervalsDuration(t *testing.T, field string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(field)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestIntervalsPage(t *testing.T) {
	given := map[string]bool{"settings": true, "situation": true, "loss": true, "targets": true, "open files": true, "round trip": true}
	seen := map[string]bool{}
	for _, row := range intervalsTables(t, "settings") {
		s := intervalsSettings(t, row["settings"])
		for column, got := range row {
			compute, ok := intervalsColumns[column]
			if !ok {
				if !given[column] {
					t.Errorf("nobody checks column %q", column)
				}
				continue
			}
			seen[column] = true
			if want := compute(s, row); got != want {
				t.Errorf("%s%s, %s: %s, want %s", row["settings"], row["round trip"], column, got, want)
			}
		}
	}
	for column := range intervalsColumns {
		if !seen[column] {
			t.Errorf("no table has a column %q", column)
		}
	}
}

// The table of damping is what falls in a row lead to.
func TestIntervalsDamping(t *testing.T) {
	columns := map[string]uint8{"1st and 2nd time": 2, "3rd": 3, "4th": 4, "5th": 5, "6th": 6, "7th": 7}
	rows := intervalsTables(t, "damping")
	if len(rows) == 0 {
		t.Fatal("no table of damping")
	}
	for _, row := range rows {
		values, _, _ := strings.Cut(strings.TrimPrefix(row["damping"], "`"), "`")
		base, most, _ := strings.Cut(values, " ")
		s := Settings{Damping: intervalsDuration(t, base), DampingMax: intervalsDuration(t, most)}
		for column, falls := range columns {
			if want := s.damping(falls).String(); row[column] != want {
				t.Errorf("%s, %s: %s, want %s", row["damping"], column, row[column], want)
			}
		}
	}
}

// live takes a target that is up through its probes, by the rule and the schedule alone, and returns when it went down.
// probe tells what becomes of a probe that is sent at a time, and how long it takes.
func live(s Settings, random *rand.Rand, until time.Duration, probe func(sent time.Duration) (checker.Result, time.Duration)) (downs []time.Duration) {
	stands := standing{state: Up}
	for sent := time.Duration(random.Float64() * float64(s.Interval)); sent < until; {
		result, took := probe(sent)
		before := stands.state
		stands, _ = stands.after(result, s.Rise, s.Fall)
		if before == Up && stands.state == Down {
			downs = append(downs, sent+took)
		}
		sent += max(spread(s.wait(stands.state, result), false, random.Float64()), took)
	}
	return downs
}

// Packets are lost one by one, and the rule judges the probes. The formula for false alarms has to be right, and may err
// upwards as the page says.
func TestFalseAlarms(t *testing.T) {
	if lab.RaceEnabled {
		t.Skip("it runs nothing at the same time, and takes a minute with the race detector; go test without -race runs this")
	}
	random := rand.New(rand.NewPCG(1, 2))
	tests := []struct {
		timeout time.Duration
		tries   int
		fall    int
		loss    float64
		least   float64 // of what the formula says
	}{
		{time.Second, 1, 2, 0.05, 0.9},
		{time.Second, 1, 3, 0.10, 0.8},
		{time.Second, 2, 3, 0.20, 0.8},
		{time.Second, 4, 1, 0.10, 0.95},
		{time.Second, 4, 2, 0.20, 0.95},
		{time.Second, 4, 3, 0.30, 0.85},
		{250 * time.Millisecond, 4, 2, 0.20, 0.95},
		{1500 * time.Millisecond, 4, 1, 0.20, 0.95},
		{2500 * time.Millisecond, 1, 1, 0.10, 0.9},
	}
	for _, tt := range tests {
		s := Settings{Interval: 2 * time.Second, Fast: 500 * time.Millisecond, Timeout: tt.timeout, Tries: tt.tries, Rise: 2, Fall: tt.fall}
		lost := func() bool { return random.Float64() < tt.loss }
		perDay := falseDownsInADay(s, tt.loss, 0)
		const enough = 2500.0
		days := enough / perDay
		downs := live(s, random, time.Duration(days*24*float64(time.Hour)), func(time.Duration) (checker.Result, time.Duration) {
			for _, at := range synsOf(s) {
				if syn, synACK := lost(), lost(); !syn && !synACK {
					return checker.Answered, at
				}
			}
			return checker.Timeout, tt.timeout
		})
		ratio := float64(len(downs)) / enough // whose standard deviation is 2 %
		t.Logf("timeout %v, tries %d, fall %d, loss %v: %.3f of what the formula says", tt.timeout, tt.tries, tt.fall, tt.loss, ratio)
		if ratio < tt.least || ratio > 1.06 {
			t.Errorf("want from %v to 1.06", tt.least)
		}
	}
}

// An outage that is shorter than the page says takes nothing down, one that is longer may, and one as long as the time of
// detection always does.
func TestOutages(t *testing.T) {
	const (
		begin  = 10 * time.Second
		phases = 3000
	)
	random := rand.New(rand.NewPCG(3, 4))
	tested := map[Settings]bool{}
	for _, row := range intervalsTables(t, "settings") {
		s := intervalsSettings(t, row["settings"])
		if tested[s] {
			continue
		}
		tested[s] = true
		for _, result := range []checker.Result{checker.Refused, checker.Timeout} {
			ignored, noticed := ignoredRefusals(s), refusalTime(s)
			if result == checker.Timeout {
				ignored, noticed = ignoredSilence(s), silenceTime(s)
			}
			downsAfter := func(outage time.Duration) (targets int, latest time.Duration) {
				for range phases {
					downs := live(s, random, begin+outage+time.Minute, func(sent time.Duration) (checker.Result, time.Duration) {
						for _, at := range synsOf(s) {
							out := sent+at >= begin && sent+at < begin+outage
							if !out {
								return checker.Answered, at
							}
							if result == checker.Refused {
								return checker.Refused, at
							}
						}
						return checker.Timeout, s.Timeout
					})
					if len(downs) > 0 {
						targets++
						latest = max(latest, downs[0]-begin)
					}
				}
				return targets, latest
			}
			if n, _ := downsAfter(ignored); n > 0 {
				t.Errorf("%v, %v for %v: %d of %d targets went down", s, result, ignored, n, phases)
			}
			if n, _ := downsAfter(ignored * 5 / 4); n == 0 {
				t.Errorf("%v, %v for %v: no target went down", s, result, ignored*5/4)
			}
			if n, latest := downsAfter(noticed + time.Millisecond); n < phases || latest > noticed {
				t.Errorf("%v, %v for %v: %d of %d targets went down, within %v", s, result, noticed, n, phases, latest)
			}
		}
	}
}
