package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// A plot is a grid of Braille characters, each two dots wide and four high, so
// that a line of an hour fits a terminal. With colours all series share one, and
// lines in their colours below it say which is which; without, lines that cross
// could not be told apart, and each series has a plot of its own.
//
//	rate(requests_total[1m])
//	12.5 ┤⠀⠀⠀⢀⡠⠤⠒⠉
//	     ┤⠀⣀⠔⠁
//	   3 ┤⠊
//	      14:00      15:00

const (
	plotRows      = 6
	sharedRows    = 12 // of a plot of several series
	maxPlotSeries = 20 // more would scroll away
	marginColumns = 12 // for the numbers at the left
	maxPlotColumn = 160
)

// palette are the colours of a terminal that are told apart on a light and on
// a dark ground; where there are more series they repeat.
var palette = []int{34, 31, 32, 35, 36, 33, 94, 91, 92, 95, 96, 93}

func coloured(colour int, s string) string { return fmt.Sprintf("\x1b[%dm%s\x1b[0m", colour, s) }

// plotWidth is how many characters of a terminal's width the curve gets.
func plotWidth(terminal int) int {
	return min(max(terminal-marginColumns, 20), maxPlotColumn)
}

// curve is what one line of a plot goes through.
type curve struct {
	name   string
	points []point
}

// curvesOf are those of a series: its values, and of native histograms quantiles.
func curvesOf(s series) []curve {
	name := seriesName(s.Metric)
	var all []curve
	if len(s.Histograms) > 0 {
		for _, q := range plottedQuantiles {
			c := curve{name: fmt.Sprintf("p%g of %s", 100*q, name)}
			for _, h := range s.Histograms {
				c.points = append(c.points, point{h.seconds, strconv.FormatFloat(h.quantile(q), 'g', -1, 64)})
			}
			all = append(all, c)
		}
	}
	if len(s.Values) > 0 || len(all) == 0 {
		all = append(all, curve{name, s.Values})
	}
	return all
}

// plot draws every series of a range, up to a bound that it tells.
func plot(out io.Writer, a answer, from, to time.Time, width int, colours bool) error {
	list, err := a.list()
	if err != nil {
		return err
	}
	if len(list) == 0 {
		fmt.Fprintln(out, "(no series)")
		return nil
	}
	var curves []curve
	for _, s := range list[:min(len(list), maxPlotSeries)] {
		curves = append(curves, curvesOf(s)...)
	}
	if colours && len(curves) > 1 {
		for _, line := range draw(curves, from, to, plotWidth(width), sharedRows) {
			fmt.Fprintln(out, line)
		}
		for i, c := range curves {
			fmt.Fprintf(out, "%s %s%s\n", coloured(palette[i%len(palette)], "━━"), c.name, lastOf(c.points))
		}
	} else {
		for _, c := range curves {
			fmt.Fprintln(out, c.name)
			for _, line := range draw([]curve{c}, from, to, plotWidth(width), plotRows) {
				fmt.Fprintln(out, line)
			}
		}
	}
	if more := len(list) - maxPlotSeries; more > 0 {
		fmt.Fprintf(out, "(and %d more series: narrow the expression, or take --output=table)\n", more)
	}
	return nil
}

// lastOf says what a curve ends with.
func lastOf(points []point) string {
	if len(points) == 0 {
		return ""
	}
	return "  " + short(points[len(points)-1].value())
}

// bounds are the least and the largest finite value; least is above largest if there is none.
func bounds(curves []curve) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, c := range curves {
		for _, p := range c.points {
			if v := p.value(); !math.IsNaN(v) && !math.IsInf(v, 0) {
				low, high = min(low, v), max(high, v)
			}
		}
	}
	return low, high
}

// cell is a character of a plot: its dots, and the curve that came last, from 1.
type cell struct {
	dots  rune
	curve int
}

// canvas is what is drawn on; x counts dots from the left, y from the bottom.
type canvas [][]cell

func (c canvas) set(x, y, curve int) {
	// The bits of a Braille character, by column and then by row from the top.
	bits := [2][4]rune{{0x01, 0x02, 0x04, 0x40}, {0x08, 0x10, 0x20, 0x80}}
	y = len(c)*4 - 1 - y
	at := &c[y/4][x/2]
	at.dots |= bits[x%2][y%4]
	at.curve = curve
}

// line is a row of it, coloured if there are several curves.
func (c canvas) line(row int, several bool) string {
	var b strings.Builder
	end := len(c[row])
	for end > 0 && c[row][end-1].dots == 0 {
		end--
	}
	for _, at := range c[row][:end] {
		s := string('⠀' + at.dots)
		if several && at.dots != 0 {
			s = coloured(palette[(at.curve-1)%len(palette)], s)
		}
		b.WriteString(s)
	}
	return b.String()
}

// draw makes the lines of one plot.
func draw(curves []curve, from, to time.Time, columns, rows int) []string {
	low, high := bounds(curves)
	if low > high {
		return []string{"  (no finite values)"}
	}
	c := make(canvas, rows)
	for i := range c {
		c[i] = make([]cell, columns)
	}
	for i := range curves {
		c.trace(curves[i].points, i+1, from, to, low, high)
	}
	lines := make([]string, 0, rows+1)
	for i := range c {
		label := ""
		switch i {
		case 0:
			label = short(high)
		case rows - 1:
			label = short(low)
		}
		lines = append(lines, fmt.Sprintf("%*s ┤%s", marginColumns-3, label, c.line(i, len(curves) > 1)))
	}
	left, right := from.Format("15:04:05"), to.Format("15:04:05")
	return append(lines, strings.Repeat(" ", marginColumns-1)+left+strings.Repeat(" ", max(1, columns-len(left)-len(right)))+right)
}

// trace draws one curve: its points, joined dot by dot but over gaps.
func (c canvas) trace(points []point, curve int, from, to time.Time, low, high float64) {
	dotsX, dotsY := len(c[0])*2, len(c)*4
	start, span := float64(from.UnixMilli())/1000, to.Sub(from).Seconds()
	lastX, lastY := -1, 0
	for _, p := range points {
		v := p.value()
		x := int(math.Round((p.seconds - start) / span * float64(dotsX-1)))
		if math.IsNaN(v) || math.IsInf(v, 0) || x < 0 || x >= dotsX {
			lastX = -1 // a gap
			continue
		}
		y := dotsY / 2 // a flat line lies in the middle
		if high > low {
			share := (v - low) / (high - low)
			if math.IsInf(high-low, 1) { // the difference of the largest numbers is none
				share = (v/2 - low/2) / (high/2 - low/2)
			}
			y = int(math.Round(share * float64(dotsY-1)))
		}
		c.set(x, y, curve)
		if lastX >= 0 {
			steps := max(x-lastX, y-lastY, lastY-y)
			for i := 1; i < steps; i++ {
				c.set(lastX+(x-lastX)*i/steps, lastY+(y-lastY)*i/steps, curve)
			}
		}
		lastX, lastY = x, y
	}
}

// short spells a number with four digits: in at most nine characters from 1e-99 to
// 1e99, and two more at the edges of what floats can hold, and below zero.
func short(v float64) string {
	s := strconv.FormatFloat(v, 'g', 4, 64)
	if a := math.Abs(v); a >= 1e4 && a < 1e16 {
		for _, u := range []struct {
			name string
			size float64
		}{{"P", 1e15}, {"T", 1e12}, {"G", 1e9}, {"M", 1e6}, {"k", 1e3}} {
			if a >= u.size {
				return strconv.FormatFloat(v/u.size, 'g', 4, 64) + u.name
			}
		}
	}
	return s
}
