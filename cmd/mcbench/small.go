package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/alecthomas/kingpin/v2"
)

// smallCommand measures what a sample costs that comes in a small request.
func smallCommand(app *kingpin.Application) (string, action) {
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
		took := map[string][][]float64{} // by contestant and shape, in turns
		for _, c := range all {
			took[c.String()] = make([][]float64, len(shapes))
		}
		for range *turns {
			for _, c := range all {
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
					took[c.String()][k] = append(took[c.String()][k], r.CPUUsPer1000)
				}
			}
		}
		fmt.Fprintf(out, "%d series × %d samples; CPU µs per 1,000 samples, median of %d\n", l.series, l.samples, *turns)
		head := "server\t"
		for _, shape := range shapes {
			head += fmt.Sprintf("%d × %d\t", shape.perRequest, shape.connections)
		}
		head += fmt.Sprintf("small/large, %d\tsmall/large, %d\t", *few, *many)
		return table(ctx, out, all, head, func(t io.Writer, c contestant) error {
			var m [4]float64
			fmt.Fprintf(t, "%v\t", c)
			for k := range shapes {
				m[k] = medianOf(took[c.String()][k])
				fmt.Fprintf(t, "%.0f\t", m[k])
			}
			fmt.Fprintf(t, "%.2f\t%.2f\t\n", m[1]/m[0], m[3]/m[2])
			return nil
		})
	}
}
