package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/alecthomas/kingpin/v2"
)

// smallCommand measures what a sample costs that comes in a small request.
func smallCommand(app *kingpin.Application) (string, func(context.Context, io.Writer) error) {
	c := app.Command("small", "Write the same load in large and in small requests, over few and many connections, to mcached and the peers, and compare the processor time.")
	f := fieldFlags(c)
	large := c.Flag("large", "Samples in a large request.").Default("2000").Int()
	little := c.Flag("small", "Samples in a small request.").Default("100").Int()
	few := c.Flag("few", "Connections, when there are few.").Default("2").Int()
	many := c.Flag("many", "Connections, when there are many.").Default("64").Int()
	turns := c.Flag("turns", "How often each is measured, in turns; medians are shown.").Default("3").Int()
	data := loadFlags(c)
	return c.FullCommand(), func(ctx context.Context, out io.Writer) error {
		l, err := data()
		if err != nil {
			return err
		}
		if *little < 1 || *large < *little || *few < 1 || *many < *few || *many > 1024 || *turns < 1 {
			return usageError{errors.New("--small must be from 1 to --large, --few from 1 to --many, --many at most 1024, --turns at least 1")}
		}
		all, err := f.contestants(out)
		if err != nil {
			return err
		}
		shapes := []struct{ perRequest, connections int }{{*large, *few}, {*little, *few}, {*large, *many}, {*little, *many}}
		took := make([][][]float64, len(all)) // by contestant and shape, in turns
		for i := range took {
			took[i] = make([][]float64, len(shapes))
		}
		for range *turns {
			for i, c := range all {
				for k, shape := range shapes {
					s, err := start(ctx, c.peer)
					if err != nil {
						return err
					}
					r, err := c.writeTo(ctx, s, writer{load: l, perRequest: shape.perRequest, connections: shape.connections})
					s.stop()
					if err != nil {
						return err
					}
					took[i][k] = append(took[i][k], r.CPUUsPer1000)
				}
			}
		}
		fmt.Fprintf(out, "%d series × %d samples; CPU µs per 1,000 samples, median of %d\n", l.series, l.samples, *turns)
		t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprint(t, "server\t")
		for _, shape := range shapes {
			fmt.Fprintf(t, "%d × %d\t", shape.perRequest, shape.connections)
		}
		fmt.Fprintf(t, "small/large, %d\tsmall/large, %d\t\n", *few, *many)
		for i, c := range all {
			var m [4]float64
			fmt.Fprintf(t, "%v\t", c)
			for k := range shapes {
				m[k] = medianOf(took[i][k])
				fmt.Fprintf(t, "%.0f\t", m[k])
			}
			fmt.Fprintf(t, "%.2f\t%.2f\t\n", m[1]/m[0], m[3]/m[2])
		}
		if err := t.Flush(); err != nil {
			return err
		}
		versions(ctx, out, all)
		return nil
	}
}
