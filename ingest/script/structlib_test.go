package script

import (
	"strings"
	"testing"
)

// TestStruct: the answers are Redis'.
func TestStruct(t *testing.T) {
	e := NewEngine(testOptions())
	for _, c := range []struct{ source, want string }{
		{`return struct.pack('>I2<i4!b',258,-2,-1)`, "$7\r\n\x01\x02\xfe\xff\xff\xff\xff\r\n"},
		{`return struct.pack('!8bd','7',1.5)`, "$16\r\n\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xf8?\r\n"},
		{`return struct.pack('Bs',300,'ab')`, "$4\r\n,ab\x00\r\n"},
		{`return struct.pack('dLc0',1.5,3,'abc')`, "$19\r\n\x00\x00\x00\x00\x00\x00\xf8?\x03\x00\x00\x00\x00\x00\x00\x00abc\r\n"},
		{`local a,n,b,at=struct.unpack('dLc0',struct.pack('dLc0',1.5,3,'abc')) return {tostring(a),n,b or 'none',at or 'none'}`, "*4\r\n$3\r\n1.5\r\n$3\r\nabc\r\n:20\r\n$4\r\nnone\r\n"},
		{`return {struct.unpack('>hBs','\255\254\200ok\0more')}`, "*4\r\n:-2\r\n:200\r\n$2\r\nok\r\n:7\r\n"},
		{`return {struct.unpack('!4bi',"\1xxx\2\0\0\0")}`, "*3\r\n:1\r\n:2\r\n:9\r\n"},
		{`return struct.size('!bixh c3')`, ":15\r\n"},
		{`return {struct.unpack('',"",1)}`, "*1\r\n:1\r\n"},
		{`return struct.pack('c5','abc')`, "-ERR user_script:1: bad argument #3 to 'pack' (string too short)"},
		{`return struct.pack('q',1)`, "-ERR user_script:1: bad argument #1 to 'pack' (invalid format option 'q')"},
		{`return struct.pack('i33',1)`, "-ERR user_script:1: integral size 33 is larger than limit of 32"},
		{`return struct.pack('!3i',1)`, "-ERR user_script:1: alignment 3 is not a power of 2"},
		{`return struct.pack('I',{})`, "-ERR user_script:1: bad argument #2 to 'pack' (number expected, got table)"},
		{`return struct.unpack('>I2','\1')`, "-ERR user_script:1: bad argument #2 to 'unpack' (data string too short)"},
		{`return struct.unpack('I','abcd',0)`, "-ERR user_script:1: bad argument #3 to 'unpack' (offset must be 1 or greater)"},
		{`return struct.unpack('I','abcd',-1)`, "-ERR user_script:1: bad argument #2 to 'unpack' (data string too short)"},
		{`return struct.unpack('I','abcd',10)`, "-ERR user_script:1: bad argument #2 to 'unpack' (data string too short)"},
		{`return struct.unpack('s','abc')`, "-ERR user_script:1: unfinished string in data"},
		{`return struct.unpack('c0','abc')`, "-ERR user_script:1: format 'c0' needs a previous size"},
		{`return struct.unpack('bc0','\200abc')`, "-ERR user_script:1: bad argument #2 to 'unpack' (data string too short)"},
		{`return struct.size('s')`, "-ERR user_script:1: bad argument #1 to 'size' (option 's' has no fixed size)"},
		{`return struct.size('c0')`, "-ERR user_script:1: bad argument #1 to 'size' (option 'c0' has no fixed size)"},
		{`return struct.pack('i99999999999',1)`, "-ERR user_script:1: integral size overflow"},
	} {
		if got, _ := runs(e, c.source); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, want %q", c.source, got, c.want)
		}
	}
	if got, _ := runs(e, `return {struct.unpack(string.rep('b',9000), string.rep('x',9000))}`); !strings.Contains(got, "too many results") {
		t.Errorf("9,000 values: %.100q", got)
	}
}
