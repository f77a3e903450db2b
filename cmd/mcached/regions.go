package main

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"

	"mcached/kvcache"
)

// regionMap is the answer of /api/v1/status/regions, which the status page
// draws: the regions of memory in the order of their addresses.
type regionMap struct {
	RegionBytes int          `json:"regionBytes"`
	Regions     int          `json:"regionsPerCell"`
	Cells       []regionCell `json:"cells"`
}

type regionCell struct {
	// Holds is heads, blocks, directories, overflow, blobs or answers; spare if the
	// region is resident but empty, free if it was given back.
	Holds string  `json:"holds"`
	Age   float64 `json:"age"` // 1 goes next of its kind, 0 is the youngest
	Live  float64 `json:"live"`
	Dead  float64 `json:"dead"`
}

// Cells of a map: what a page shows at once, and a bound on what is computed.
const (
	defaultCells = 512
	maxCells     = 4096
)

// serveRegions draws no sample and no key: it may be shown to whoever may read.
func (d *daemon) serveRegions(w http.ResponseWriter, r *http.Request) {
	n := defaultCells
	if s := r.FormValue("cells"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 1 || n > maxCells {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"status":"error","errorType":"bad_data","error":"cells must be a number from 1 to ` + strconv.Itoa(maxCells) + `"}`))
			return
		}
	}
	m := regionMap{RegionBytes: d.memory.RegionBytes(), Cells: []regionCell{}}
	for _, c := range d.memory.RegionMap(nil, n) {
		m.Regions = max(m.Regions, c.Regions)
		m.Cells = append(m.Cells, regionCell{Holds: d.holds(c), Age: percent(c.Age), Live: percent(c.Live), Dead: percent(c.Dead)})
	}
	b, err := json.Marshal(map[string]any{"status": "success", "data": m})
	if err != nil {
		panic(err) // numbers and words only
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // a reader who has gone needs no answer
}

// holds names what is in a cell.
func (d *daemon) holds(c kvcache.RegionCell) string {
	switch {
	case c.InUse == 0 && c.Spare > 0:
		return "spare"
	case c.InUse == 0:
		return "free"
	case c.Account == accountBlobs:
		return "blobs"
	case c.Account == accountAnswers:
		return "answers"
	case c.Account == accountOverflow:
		return "overflow"
	case c.Class == kvcache.Log:
		return "blocks"
	case c.Class == kvcache.Hot:
		return "heads"
	}
	return "directories"
}

// percent keeps two digits, which is what colours show.
func percent(v float64) float64 { return math.Round(v*100) / 100 }
