package lab

import (
	"fmt"
	"math"
)

// Significance is the likelihood below which a test that counts chances calls them wrong. It is so small that no run fails
// by chance, and what is really wrong is still far below it after some thousand draws.
const Significance = 1e-9

// ChiSquared returns how likely it is by chance that counts are at least as far as these from their shares of the whole,
// by Pearson's test. The shares are above 0, and may have any sum. Each should be good for five counts at least, below
// which the distribution of the statistic is another.
func ChiSquared(counts []int, shares []float64) (likelihood float64) {
	if len(counts) != len(shares) || len(counts) < 2 {
		panic(fmt.Sprintf("lab: %d counts and %d shares", len(counts), len(shares)))
	}
	var total int
	var whole, statistic float64
	for i := range counts {
		total += counts[i]
		whole += shares[i]
	}
	for i, n := range counts {
		expected := float64(total) * shares[i] / whole
		statistic += (float64(n) - expected) * (float64(n) - expected) / expected
	}
	return chiSquaredTail(statistic, len(counts)-1)
}

// chiSquaredTail returns how likely a statistic is at least x, which is Q(freedom/2, x/2), the incomplete gamma function:
// Q(1/2, y) = erfc(√y), Q(1, y) = exp(-y) and Q(a+1, y) = Q(a, y) + exp(-y) y^a / Γ(a+1).
func chiSquaredTail(x float64, freedom int) float64 {
	y := x / 2
	if y == 0 {
		return 1
	}
	a, q := 0.5, math.Erfc(math.Sqrt(y))
	if freedom%2 == 0 {
		a, q = 1, math.Exp(-y)
	}
	for ; a < float64(freedom)/2; a++ {
		gamma, _ := math.Lgamma(a + 1)
		q += math.Exp(a*math.Log(y) - y - gamma)
	}
	return q
}
