// Package resp is the language of Redis' clients: what they send, taken apart,
// and what they are answered, put together. It knows no command, no connection
// and no cache.
//
//   - Framer finds the commands in a stream of bytes, within Limits that hold
//     before anything that a stranger announces is believed.
//   - Reply collects answers, in RESP2 by redcon's appenders and in RESP3.
//   - EqualFold and Lower are how names and words are read; ParseInt, ParseFloat
//     and ParseLongDouble how numbers are, as Redis reads them but for
//     hexadecimal ones.
//   - Match and Compile are the patterns of KEYS, SplitLine is what is typed.
//
// Nothing here allocates on the way of a command, but for what is typed. Slices
// that come out are views of what went in.
package resp
