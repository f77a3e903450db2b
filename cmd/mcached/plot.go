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
// that a line of an hour fits a terminal. Each series has one of its own: in a
// terminal without colours, lines that cross cannot be told apart.
//
//	rate(requests_total[1m])
//	12.5 ┤⠀⠀⠀⢀⡠⠤⠒⠉
//	     ┤⠀⣀⠔⠁
//	   3 ┤⠊
//	      14:00      15:00

const (
	plotRows      = 6
	maxPlotSeries = 20 // more would scroll away
	marginColumns = 12 // for the numbers at the left
	maxPlotColumn = 160
)

// plotWidth is how many characters of a terminal's width the curve gets.
func plotWidth(terminal int) int {
	return min(max(terminal-marginColumns, 20), maxPlotColumn)
}

// plot draws every series of a range, up to a bound that it tells.
func plot(out io.Writer, a answer, from, to time.Time, width int) error {
	list, err := a.list()
	if err != nil {
		return err
	}
	if len(list) == 0 {
		fmt.Fprintln(out, "(no series)")
		return nil
	}
	for _, s := range list[:min(len(list), maxPlotSeries)] {
		fmt.Fprintln(out, seriesName(s.Metric))
		for _, line := range draw(s.Values, from, to, plotWidth(width), plotRows) {
			fmt.Fprintln(out, line)
		}
	}
	if more := len(list) - maxPlotSeries; more > 0 {
		fmt.Fprintf(out, "(and %d more series: narrow the expression, or take --output=table)\n", more)
	}
	return nil
}

// draw makes the lines of one plot.
func draw(points []point, from, to time.Time, columns, rows int) []string {
	low, high := math.Inf(1), math.Inf(-1)
	for _, p := range points {
		if v := p.value(); !math.IsNaN(v) && !math.IsInf(v, 0) {
			low, high = min(low, v), max(high, v)
		}
	}
	if low > high {
		return []string{"  (no finite values)"}
	}
	cells := make([][]rune, rows)
	for i := range cells {
		cells[i] = []rune(strings.Repeat("⠀", columns))
	}
	dotsX, dotsY := columns*2, rows*4
	set := func(x, y int) { // y from the bottom
		// The bits of a Braille character, by column and then by row from the top.
		bits := [2][4]rune{{0x01, 0x02, 0x04, 0x40}, {0x08, 0x10, 0x20, 0x80}}
		y = dotsY - 1 - y
		cells[y/4][x/2] |= bits[x%2][y%4]
	}
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
		set(x, y)
		if lastX >= 0 { // join to the point before, dot by dot
			steps := max(x-lastX, y-lastY, lastY-y)
			for i := 1; i < steps; i++ {
				set(lastX+(x-lastX)*i/steps, lastY+(y-lastY)*i/steps)
			}
		}
		lastX, lastY = x, y
	}

	lines := make([]string, 0, rows+1)
	for i, cell := range cells {
		label := ""
		switch i {
		case 0:
			label = short(high)
		case rows - 1:
			label = short(low)
		}
		lines = append(lines, fmt.Sprintf("%*s ┤%s", marginColumns-3, label, strings.TrimRight(string(cell), "⠀")))
	}
	left, right := from.Format("15:04:05"), to.Format("15:04:05")
	return append(lines, strings.Repeat(" ", marginColumns-1)+left+strings.Repeat(" ", max(1, columns-len(left)-len(right)))+right)
}

// short spells a number in at most nine characters.
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
