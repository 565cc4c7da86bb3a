package answer

import "testing"

func TestFallbackKinds(t *testing.T) {
	for kind, want := range map[FallbackKind]string{
		FallbackAll: "all", FallbackNoData: "nodata", FallbackServFail: "servfail", FallbackAddresses: "addresses"} {
		if kind.String() != want {
			t.Errorf("%d is called %q, want %q", kind, kind, want)
		}
	}
	if (Fallback{}).Kind != FallbackAll {
		t.Error("the zero value is not the documented default")
	}
}
