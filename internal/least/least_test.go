package least

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// Whatever comes in, the least are what sorting finds.
func TestLeast(t *testing.T) {
	orders := map[string]func(i, n int) int{
		"rising":  func(i, _ int) int { return i },
		"falling": func(i, n int) int { return n - i },
		"equal":   func(int, int) int { return 7 },
		"few":     func(i, _ int) int { return i % 3 },
		"random":  func(int, int) int { return rand.Int() },
	}
	for name, order := range orders {
		for _, added := range []int{0, 1, 2, 9, 10, 11, 19, 20, 21, 1000} {
			for _, n := range []int{1, 2, 10, 999, 1000, 1 << 30} {
				for _, first := range []int{0, 1, 9, 500, 999, 1000} {
					want := make([]int, 0, added)
					l := New(n, added/2, cmp.Compare[int])
					for i := range added {
						value := order(i, added)
						want = append(want, value)
						l.Add(value)
						if len(l.kept) >= 2*n {
							t.Fatalf("%s: %d are kept to find %d", name, len(l.kept), n)
						}
					}
					slices.Sort(want)
					want = want[min(first, added):max(min(n, added), min(first, added))]
					if got := l.From(first); !slices.Equal(got, want) {
						t.Errorf("%s: of %d, the %d least from %d on: %v, want %v", name, added, n, first, got, want)
					}
				}
			}
		}
	}
}

// Adding takes no longer where more are wanted.
func BenchmarkAdd(b *testing.B) {
	for _, n := range []int{100, 10_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			l := New(n, 1<<30, cmp.Compare[uint64])
			for b.Loop() {
				l.Add(rand.Uint64())
			}
		})
	}
}
