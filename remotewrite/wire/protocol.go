package wire

import (
	"fmt"
	"mime"
	"net/http"
)

// Protocol is a version of remote write; the zero value is none.
type Protocol uint8

const (
	V1 Protocol = iota + 1 // prometheus.WriteRequest
	V2                     // io.prometheus.write.v2.Request
)

// String names the protocol as its specification does.
func (p Protocol) String() string {
	switch p {
	case V1:
		return "1.0"
	case V2:
		return "2.0"
	}
	return "none"
}

// Content types by which senders name the protocols.
const (
	ContentTypeV1 = "application/x-protobuf"
	ContentTypeV2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"

	protoV1 = "prometheus.WriteRequest"
	protoV2 = "io.prometheus.write.v2.Request"
)

// ProtocolOf is the protocol that a Content-Type names. None is 1.0.
func ProtocolOf(contentType string) (Protocol, error) {
	switch contentType { // as senders write them; parsing takes longer
	case "", ContentTypeV1:
		return V1, nil
	case ContentTypeV2:
		return V2, nil
	}
	media, params, err := mime.ParseMediaType(contentType)
	if err == nil && media == "application/x-protobuf" {
		switch params["proto"] {
		case "", protoV1:
			return V1, nil
		case protoV2:
			return V2, nil
		}
	}
	return 0, fmt.Errorf("Content-Type must be application/x-protobuf with proto=%s or %s, got %s", protoV1, protoV2, Quote(contentType))
}

// Headers of requests and, in protocol 2.0, of their answers. They are
// canonical, so that they can be keys of an http.Header.
const (
	HeaderVersion           = "X-Prometheus-Remote-Write-Version"
	HeaderSamplesWritten    = "X-Prometheus-Remote-Write-Samples-Written"
	HeaderHistogramsWritten = "X-Prometheus-Remote-Write-Histograms-Written"
	HeaderExemplarsWritten  = "X-Prometheus-Remote-Write-Exemplars-Written"
)

// SetHeaders sets what a request of protocol p with a compressed body carries.
func SetHeaders(h http.Header, p Protocol) {
	h.Set("Content-Encoding", "snappy")
	h.Set("User-Agent", "mcached")
	if p == V2 {
		h.Set("Content-Type", ContentTypeV2)
		h.Set(HeaderVersion, "2.0.0")
		return
	}
	h.Set("Content-Type", ContentTypeV1)
	h.Set(HeaderVersion, "0.1.0")
}
