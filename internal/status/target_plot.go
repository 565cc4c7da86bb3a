package status

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/coredns-shaker/shaker/checker"
	"github.com/coredns-shaker/shaker/health"
)

// plot is a drawing of the round trips in a history. The places of its parts are in percent of its width and height, so that
// it fills whatever room there is while its letters stay as large as all others.
type plot struct {
	Points []plotPoint
	Lines  []plotLine // from one point to the next
	Bands  []plotBand // slots in which something failed
	Trips  []plotMark // on the vertical axis, which is logarithmic
	Ages   []plotMark // on the horizontal one
}

type (
	plotPoint struct {
		X, Y  percent
		Words string
	}
	plotLine struct{ From, To plotPoint }
	plotBand struct {
		Class    string
		X, Width percent
	}
	plotMark struct {
		At    percent
		Label string
	}
)

// percent is a length in an SVG.
type percent float64

func (p percent) String() string { return strconv.FormatFloat(float64(p), 'f', 2, 64) + "%" }

// What the axes leave for their labels.
const (
	plotLeft, plotRight = 14, 98
	plotTop, plotBottom = 5, 84
)

// Left, Right, Top and Height are where the drawing itself is, without the labels.
func (p *plot) Left() percent   { return plotLeft }
func (p *plot) Right() percent  { return plotRight }
func (p *plot) Top() percent    { return plotTop }
func (p *plot) Height() percent { return plotBottom - plotTop }

// Plot draws the history. It is nil where no round trip is known.
func (t target) Plot() *plot {
	least, most := time.Duration(math.MaxInt64), time.Duration(0)
	for _, slot := range t.History {
		if slot != nil && slot.RoundTrip > 0 {
			least, most = min(least, slot.roundTrip()), max(most, slot.roundTrip())
		}
	}
	if most == 0 {
		return nil
	}
	p := new(plot)
	trips := tripAxis(least, most)
	height := func(trip time.Duration) percent {
		part := math.Log(float64(trip)/float64(trips[0])) / math.Log(float64(trips[len(trips)-1])/float64(trips[0]))
		return percent(plotBottom - part*(plotBottom-plotTop))
	}
	for _, trip := range trips {
		p.Trips = append(p.Trips, plotMark{height(trip), spell(trip)})
	}
	const width = float64(plotRight-plotLeft) / health.HistorySlots
	for i, slot := range t.History {
		x := plotLeft + width*float64(i)
		switch {
		case slot == nil:
		case slot.RoundTrip > 0:
			p.add(plotPoint{percent(x + width/2), height(slot.roundTrip()), slotAge(i) + ": " + tripWords(slot.roundTrip())}, i > 0 && t.History[i-1].hasTrip())
		case slot.Result == checker.Inconclusive.String():
			p.Bands = append(p.Bands, plotBand{"unknown", percent(x), percent(width)})
		case slot.Result != checker.Answered.String():
			p.Bands = append(p.Bands, plotBand{"down", percent(x), percent(width)})
		}
	}
	p.addAges()
	return p
}

// add draws a point, with a line from the one before it if they are side by side.
func (p *plot) add(at plotPoint, beside bool) {
	if beside {
		p.Lines = append(p.Lines, plotLine{p.Points[len(p.Points)-1], at})
	}
	p.Points = append(p.Points, at)
}

// addAges writes how long ago that was, for every whole minute.
func (p *plot) addAges() {
	const minutes = int(health.HistorySlots * health.HistorySlot / time.Minute)
	for age := minutes; age >= 0; age-- {
		label := fmt.Sprintf("−%d min", age)
		if age == 0 {
			label = "now"
		}
		p.Ages = append(p.Ages, plotMark{percent(plotRight - float64(plotRight-plotLeft)*float64(age)/float64(minutes)), label})
	}
}

// tripAxis returns the marks of an axis that has all round trips from least to most on it: 1, 2 and 5 and their tenfolds, or
// only the first of them where these would be many.
func tripAxis(least, most time.Duration) []time.Duration {
	const many = 7
	for _, steps := range [][]time.Duration{{1, 2, 5}, {1}} {
		var all []time.Duration
		for decade := time.Microsecond; decade <= 100*time.Second; decade *= 10 {
			for _, step := range steps {
				all = append(all, step*decade)
			}
		}
		from, to := 0, len(all)-1
		for from+1 < len(all) && all[from+1] <= least {
			from++
		}
		for to > 0 && all[to-1] >= most {
			to--
		}
		if from >= to { // all are the same, and a mark themselves
			from, to = max(from-1, 0), min(to+1, len(all)-1)
		}
		if all = all[from : to+1]; len(all) <= many || len(steps) == 1 {
			return all
		}
	}
	panic("the last steps are good enough")
}

// AverageTrip is the average of the round trips.
func (t target) AverageTrip() string { return tripWords(time.Duration(t.RoundTrip * 1e9)) }

// tripWords writes a round trip as well as a history knows it: with two digits that count.
func tripWords(d time.Duration) string {
	for least := time.Duration(100); least <= d; least *= 10 {
		d = d.Round(least / 10)
	}
	unit, name := time.Microsecond, "µs"
	switch {
	case d >= time.Second:
		unit, name = time.Second, "s"
	case d >= time.Millisecond:
		unit, name = time.Millisecond, "ms"
	}
	digits := 0
	if d < 10*unit {
		digits = 1
	}
	return strconv.FormatFloat(float64(d)/float64(unit), 'f', digits, 64) + " " + name
}

// slotAge tells how long ago a slot of the history began, at least.
func slotAge(slot int) string {
	if ago := time.Duration(health.HistorySlots-1-slot) * health.HistorySlot; ago > 0 {
		return fmt.Sprintf("%d s ago", int(ago.Seconds()))
	}
	return "now"
}

// PlotWords tell what the drawing shows, where there is one.
func (t target) PlotWords() string {
	var known, failed int
	least, most, newest := time.Duration(math.MaxInt64), time.Duration(0), time.Duration(0)
	for _, slot := range t.History {
		switch {
		case slot.hasTrip():
			known++
			newest = slot.roundTrip()
			least, most = min(least, newest), max(most, newest)
		case slot != nil && slot.Result != checker.Answered.String():
			failed++
		}
	}
	trips := tripWords(newest)
	if most > least {
		trips = fmt.Sprintf("from %s to %s, the newest %s", tripWords(least), tripWords(most), trips)
	}
	words := fmt.Sprintf("The longest round trip in each of %s of %s: %s.", several(known, "slot"), spell(health.HistorySlot), trips)
	if failed > 0 {
		words += fmt.Sprintf(" In %s, which are shaded, not all checks were answered.", several(failed, "other"))
	}
	return words
}

// pastSlot is a slot as the row of a table.
type pastSlot struct{ Age, Result, Trip string }

// Slots returns the history in words, the newest first.
func (t target) Slots() (all []pastSlot) {
	for i, slot := range t.History {
		row := pastSlot{Age: slotAge(i), Result: "no check"}
		if slot != nil {
			row.Result = slot.words()
			if slot.hasTrip() {
				row.Trip = tripWords(slot.roundTrip())
			}
		}
		all = append([]pastSlot{row}, all...)
	}
	return all
}

func (s *slot) hasTrip() bool { return s != nil && s.RoundTrip > 0 }

func (s *slot) roundTrip() time.Duration { return time.Duration(math.Round(s.RoundTrip * 1e9)) }

// words tell what came in.
func (s *slot) words() string {
	if s.Mixed {
		return s.Result + " and answered"
	}
	return s.Result
}
