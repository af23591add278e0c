package bench

import (
	"os"
	"strconv"
	"testing"
)

func BenchmarkDev(b *testing.B) {
	n, _ := strconv.Atoi(os.Getenv("N"))
	f := newFixture(b, shapes[os.Getenv("SHAPE")](n))
	b.ResetTimer()
	for range b.N {
		s := f.run(b, true)
		b.ReportMetric(ms(s.dump.cpu), "ms/dump")
		b.ReportMetric(ms(s.decode.cpu), "ms/decode")
		b.ReportMetric(ms(s.analysis.cpu), "ms/analysis")
		b.ReportMetric(ms(s.analysis.wall), "ms/analysis-wall")
	}
}
