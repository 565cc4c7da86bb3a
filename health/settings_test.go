package health

import (
	"math"
	"net/netip"
	"testing"
	"time"
	"unique"
)

func TestSettings(t *testing.T) {
	defaults := Settings{Interval: 2 * time.Second, Fast: 500 * time.Millisecond, Timeout: time.Second, Tries: 4, Rise: 2, Fall: 3}
	source := netip.MustParseAddr("192.0.2.1")
	full := Settings{Interval: 9, Fast: 8, Timeout: 7, Tries: 16, Rise: 6, Fall: 5, Source: source}
	with := func(change func(*Settings)) Settings {
		s := defaults
		change(&s)
		return s
	}
	tests := map[string]struct {
		in   Key
		want Settings
	}{
		"zero key":       {Key{}, defaults},
		"zero":           {unique.Make(Settings{}), defaults},
		"negative":       {unique.Make(Settings{Interval: -1, Fast: -1, Timeout: -1, Tries: -1, Rise: -1, Fall: -1}), defaults},
		"full":           {unique.Make(full), full},
		"many tries":     {unique.Make(Settings{Tries: 17}), with(func(s *Settings) { s.Tries = 16 })},
		"source only":    {unique.Make(Settings{Source: source}), with(func(s *Settings) { s.Source = source })},
		"fast too long":  {unique.Make(Settings{Fast: time.Hour}), with(func(s *Settings) { s.Fast = s.Interval })},
		"short interval": {unique.Make(Settings{Interval: 1}), with(func(s *Settings) { s.Interval, s.Fast = 1, 1 })},
		"endless":        {unique.Make(Settings{Interval: math.MaxInt64}), with(func(s *Settings) { s.Interval = maxDuration })},
	}
	for name, tt := range tests {
		if got := settings(tt.in); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestSettingsString(t *testing.T) {
	const plain = "interval 2s 500ms timeout 1s tries 4 rise 2 fall 3"
	tests := []struct {
		change Settings
		want   string
	}{
		{Settings{}, plain},
		{Settings{Interval: time.Minute, Fast: 1500 * time.Millisecond, Timeout: 200 * time.Millisecond, Tries: 2, Rise: 1, Fall: 10},
			"interval 1m0s 1.5s timeout 200ms tries 2 rise 1 fall 10"},
		{Settings{Damping: 30 * time.Second}, plain + " damping 30s 5m0s"},
		{Settings{DampingMax: time.Hour}, plain},
		{Settings{Source: netip.MustParseAddr("2001:db8::1")}, plain + " source 2001:db8::1"},
		{Settings{Damping: time.Second, DampingMax: time.Minute, Source: netip.MustParseAddr("192.0.2.1")},
			plain + " damping 1s 1m0s source 192.0.2.1"},
	}
	for _, tt := range tests {
		if got := settings(unique.Make(tt.change)).String(); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}
