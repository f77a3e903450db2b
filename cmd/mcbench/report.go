package main

import (
	"context"
	"fmt"
	"io"
	"time"
)

// writeReport is the outcome of a load, as --json prints it.
type writeReport struct {
	Series           int    `json:"series"`
	SamplesPerSeries int    `json:"samples_per_series"`
	Protocol         string `json:"protocol"`
	StartMs          int64  `json:"start_ms"`

	Samples        int     `json:"samples"`
	Seconds        float64 `json:"seconds"`
	SamplesPerS    float64 `json:"samples_per_second"`
	Requests       int     `json:"requests"`
	Retries        int     `json:"retries"`
	P50Ms          float64 `json:"request_p50_ms"`
	P99Ms          float64 `json:"request_p99_ms"`
	DueP50Ms       float64 `json:"request_p50_ms_from_due"` // zero without --rate, as the next
	DueP99Ms       float64 `json:"request_p99_ms_from_due"`
	BytesPerSample float64 `json:"wire_bytes_per_sample"`

	// Of the server, and zero without --pid.
	CPUUsPer1000  float64 `json:"server_cpu_us_per_1000_samples"`
	RSSGrownBytes int64   `json:"server_rss_grown_bytes"`
	RSSPerSeries  float64 `json:"server_rss_bytes_per_series"`
	RSSPerSample  float64 `json:"server_rss_bytes_per_sample"`
	RSSBytes      int64   `json:"server_rss_bytes"`

	Checked bool    `json:"checked"`
	Check   checked `json:"-"`
}

// write runs w and fills in what it did and cost.
func (r *writeReport) write(ctx context.Context, w *writer, p process) error {
	before, err := p.usage()
	if err != nil {
		return err
	}
	done, err := w.run(ctx)
	if err != nil {
		return err
	}
	after, err := p.usage()
	if err != nil {
		return err
	}
	n := float64(done.samples)
	r.Samples, r.Requests, r.Retries = done.samples, done.requests, done.retries
	r.Seconds = done.elapsed.Seconds()
	r.SamplesPerS = n / r.Seconds
	r.P50Ms, r.P99Ms = ms(percentile(done.latencies, 50)), ms(percentile(done.latencies, 99))
	r.DueP50Ms, r.DueP99Ms = ms(percentile(done.delays, 50)), ms(percentile(done.delays, 99))
	r.BytesPerSample = float64(done.bodyBytes) / n
	r.CPUUsPer1000 = float64((after.cpu - before.cpu).Microseconds()) / n * 1000
	r.RSSBytes = after.rssBytes
	r.RSSGrownBytes = after.rssBytes - before.rssBytes
	r.RSSPerSeries = float64(r.RSSGrownBytes) / float64(r.Series)
	r.RSSPerSample = float64(r.RSSGrownBytes) / n
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// percentile of sorted: the smallest that p percent do not exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

func (r *writeReport) print(out io.Writer) error {
	if r.Samples > 0 {
		fmt.Fprintf(out, "%d series × %d samples, protocol %s, from %d\n", r.Series, r.SamplesPerSeries, r.Protocol, r.StartMs)
		fmt.Fprintf(out, "%12.0f samples/s (%d in %.2f s, %d requests, %d retries)\n", r.SamplesPerS, r.Samples, r.Seconds, r.Requests, r.Retries)
		fmt.Fprintf(out, "%8.1f %6.1f ms request p50, p99\n", r.P50Ms, r.P99Ms)
		if r.DueP99Ms > 0 {
			fmt.Fprintf(out, "%8.1f %6.1f ms from when it was due\n", r.DueP50Ms, r.DueP99Ms)
		}
		fmt.Fprintf(out, "%12.1f B/sample on the wire\n", r.BytesPerSample)
		if r.RSSBytes > 0 {
			fmt.Fprintf(out, "%12.0f µs of server CPU per 1,000 samples\n", r.CPUUsPer1000)
			fmt.Fprintf(out, "%12.0f B of server memory per series, %.2f per sample (grown by %.1f MiB to %.1f)\n",
				r.RSSPerSeries, r.RSSPerSample, float64(r.RSSGrownBytes)/(1<<20), float64(r.RSSBytes)/(1<<20))
		}
	}
	if r.Checked {
		fmt.Fprintf(out, "%12d samples read back exactly, %d missing, %d wrong, %d extra\n", r.Check.samples, r.Check.missing, r.Check.wrong, r.Check.extra)
	}
	return nil
}
