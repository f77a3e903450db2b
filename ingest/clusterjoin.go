package ingest

import (
	"bufio"
	"bytes"
	"strconv"

	"mcached/ingest/resp"
)

// joined puts the answers to the parts of a command together: an error, if one
// of them is. keys are the numbers of each part's keys, in joinOrder.
func joined(by joinBy, replies [][]byte, keys [][]int, v3 bool) []byte {
	for _, r := range replies {
		if len(r) == 0 {
			return []byte("-" + errClusterDown + "\r\n")
		}
		if r[0] == '-' {
			return r
		}
	}
	switch by {
	case joinOK:
		return replies[0]
	case joinSum:
		sum := int64(0)
		for _, r := range replies {
			n, ok := resp.ParseInt(bytes.TrimSuffix(bytes.TrimPrefix(r, []byte(":")), []byte("\r\n")))
			if !ok {
				return []byte("-ERR a node's answer is not a number\r\n")
			}
			sum += n
		}
		return []byte(":" + strconv.FormatInt(sum, 10) + "\r\n")
	}
	var all [][]byte
	for part, r := range replies {
		elements, ok := elementsOf(r)
		switch {
		case !ok || by == joinOrder && len(elements) != len(keys[part]):
			return []byte("-ERR a node's answer has not an element for each key\r\n")
		case by == joinAll:
			all = append(all, elements...)
			continue
		case by == joinLeast:
			if part > 0 && len(elements) != len(all) {
				return []byte("-ERR the nodes' answers are not of one length\r\n")
			}
			for i, e := range elements {
				if part == 0 {
					all = append(all, e)
				} else if bytes.Compare(e, all[i]) < 0 { // they are digits
					all[i] = e
				}
			}
			continue
		}
		for i, k := range keys[part] {
			for len(all) <= k {
				all = append(all, nil)
			}
			all[k] = elements[i]
		}
	}
	out := resp.Reply{V3: v3}
	out.Array(len(all))
	return append(out.B, bytes.Join(all, nil)...)
}

// elementsOf are the encoded elements of an array.
func elementsOf(reply []byte) (all [][]byte, ok bool) {
	head, rest, ok := bytes.Cut(reply, []byte("\r\n"))
	if !ok || len(head) < 2 || head[0] != '*' {
		return nil, false
	}
	n, err := strconv.Atoi(string(head[1:]))
	if err != nil || n < 0 {
		return nil, false
	}
	br := bufio.NewReaderSize(bytes.NewReader(rest), max(16, min(len(rest), 64<<10)))
	for range n {
		e, err := readAnswer(br, nil, len(rest))
		if err != nil {
			return nil, false
		}
		all = append(all, e)
	}
	return all, true
}
