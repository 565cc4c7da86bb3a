package lab

import (
	"math"
	"math/rand/v2"
	"testing"
)

// The critical values are those that every table of the distribution has.
func TestChiSquaredTail(t *testing.T) {
	for _, tt := range []struct {
		x       float64
		freedom int
		want    float64
	}{
		{0, 3, 1},
		{3.841, 1, 0.05},
		{6.635, 1, 0.01},
		{5.991, 2, 0.05},
		{13.816, 2, 0.001},
		{7.815, 3, 0.05},
		{14.067, 7, 0.05},
		{24.322, 7, 0.001},
		{18.307, 10, 0.05},
		{124.342, 100, 0.05},
	} {
		if got := chiSquaredTail(tt.x, tt.freedom); math.Abs(got-tt.want) > tt.want/500 {
			t.Errorf("%v with %d degrees of freedom: %v, want %v", tt.x, tt.freedom, got, tt.want)
		}
	}
}

// A die is told from one that is loaded.
func TestChiSquared(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	fair, loaded := make([]int, 6), make([]int, 6)
	for range 10_000 {
		n := dice.IntN(6)
		fair[n]++
		if n == 5 && dice.IntN(5) == 0 {
			n = 0
		}
		loaded[n]++
	}
	shares := []float64{1, 1, 1, 1, 1, 1}
	if p := ChiSquared(fair, shares); p < 0.001 {
		t.Errorf("a fair die: %v for %v", p, fair)
	}
	if p := ChiSquared(loaded, shares); p > Significance {
		t.Errorf("a loaded die: %v for %v", p, loaded)
	}
	if p := ChiSquared(loaded, []float64{6, 5, 5, 5, 5, 4}); p < 0.001 {
		t.Errorf("a loaded die, by its true shares: %v for %v", p, loaded)
	}
}
