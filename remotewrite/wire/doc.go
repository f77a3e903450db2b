// Package wire is what both ends of Prometheus remote write share: the fields
// of protobuf, the tags of the messages of protocols 1.0 and 2.0, and the
// headers that go with them. It builds and keeps nothing: functions read slices
// that stay the caller's, and return positions in them.
//
// Decoders and encoders are written by hand beside it (packages remotewrite and
// remotewrite/send), because a series that is known costs less to compare than
// to decode.
package wire
