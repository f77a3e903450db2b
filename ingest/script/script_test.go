package script

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mcached/ingest/resp"
)

func testOptions() Options {
	return Options{Timeout: time.Hour, MaxBytes: 8 << 20, MaxSteps: 1_000_000, Now: time.Now, Log: func(int, string) {}, Version: "7.0.15"}
}

// echo answers a command with its last argument.
func echo(args [][]byte, _ bool) []byte { return resp.AppendBulk(nil, args[len(args)-1]) }

func runs(e *Engine, source string) (answer string, ended End) {
	p, err := Compile([]byte(source))
	if err != nil {
		return "-" + err.Error(), NotEnded
	}
	var r resp.Reply
	ended = e.Run(p, &Run{Call: echo, Known: func(string) bool { return true }, Killed: new(atomic.Bool)}, &r)
	return string(r.B), ended
}

// endless are scripts that go on forever, or nearly, if they are let.
var endless = map[string]string{
	"loop":                  `while true do end`,
	"count":                 `for i=1,1e15 do end`,
	"goto":                  `::a:: goto a`,
	"behind pcall":          `while true do pcall(function() while true do end end) end`,
	"behind xpcall":         `while true do xpcall(function() while true do end end, function() while true do end end) end`,
	"tail calls":            `local function f() return f() end return f()`,
	"calls":                 `while true do redis.call('echo','x') end`,
	"doubling":              `local s='x' while true do s=s..s end`,
	"doubling by many":      `local s='x' while true do s=s..s..s..s..s..s..s..s..s..s..s end`,
	"growing":               `local s='' while true do s=s..'0123456789' end`,
	"table":                 `local t={} while true do t[#t+1]={} end`,
	"strings":               `local t={} local i=0 while true do i=i+1 t[i]=i..'' end`,
	"keys":                  `local t={} local i=0 while true do i=i+1 t['k'..i]=true end`,
	"closures":              `local t={} while true do local x={} t[#t+1]=function() return x end end`,
	"coroutine":             `local co=coroutine.create(function() while true do end end) coroutine.resume(co) while true do end`,
	"wrapped":               `coroutine.wrap(function() while true do end end)()`,
	"coroutines":            `local t={} while true do local co=coroutine.wrap(function() coroutine.yield() end) co() t[#t+1]=co end`,
	"nested coroutines":     `local function f() coroutine.wrap(f)() end while true do pcall(f) end`,
	"never yields":          `local co=coroutine.wrap(function() while true do coroutine.yield() end end) while true do co() end`,
	"pattern":               `return string.find(string.rep('a',100000), '.-.-.-.-.-b')`,
	"pattern of stars":      `return string.find(string.rep('a',3000), 'a*a*a*a*a*a*b')`,
	"gmatch":                `for w in string.gmatch(string.rep('a',1000000), '.-.-.-x') do end`,
	"gsub":                  `return string.gsub(string.rep('a',1000000),'a',string.rep('b',1000000))`,
	"gsub by function":      `local s=string.rep('b',1000000) return string.gsub(string.rep('a',1000000),'a',function() return s end)`,
	"gsub of captures":      `return string.gsub(string.rep('a',1000000),'.*',string.rep('%0',1000))`,
	"concat of a table":     `local s=string.rep('x',1000000) local t={} for i=1,1000 do t[i]=s end return table.concat(t)`,
	"format":                `local s=string.rep('x',1000000) while true do s=string.format('%s%s',s,s) end`,
	"quote":                 `local s='"' while true do s=string.format('%q',s) end`,
	"upper":                 `local t={} local s=string.rep('x',1000000) while true do t[#t+1]=s:upper() end`,
	"json of a graph":       `local t={1} for i=1,60 do t={t,t} end return cjson.encode(t)`,
	"json of strings":       `local s=string.rep('x',1000000) local t={} for i=1,1000 do t[i]=s end return cjson.encode(t)`,
	"msgpack of a graph":    `local t={1} for i=1,15 do t={t,t,t,t,t,t,t,t} end return cmsgpack.pack(t)`,
	"answer of a graph":     `local t={1} for i=1,60 do t={t,t} end return t`,
	"sort":                  `local t={} for i=1,100000 do t[i]=i end while true do table.sort(t,function(a,b) return a<b end) end`,
	"sort without function": `local t={} for i=1,100000 do t[i]=i%7 end while true do table.sort(t) end`,
	"insert in front":       `local t={} while true do table.insert(t,1,1) end`,
	"sparse arrays":         `local a={} while true do local t={} t[400000]=1 a[#a+1]=t end`,
	"sparse by names":       `local a={} for i=1,1e9 do local t,k={},400000+i%9 t[k],t.x=1,2 a[#a+1]=t end`,
	"sparse constructors":   `local a={} for i=1,1e9 do a[#a+1]={[400000+i%9]=i} end`,
	"sparse by functions":   `local a={} while true do local t={} rawset(t,400000,1) table.insert(t,500000,1) a[#a+1]=t end`,
	"sparse behind another": `local a={} while true do local b={} local t=setmetatable({},{__newindex=b}) for i=399990,400000 do rawset(t,1,1) t[i]=1 end a[#a+1]=b end`,
	"sparse messages":       `local s=cmsgpack.pack({[400000]=1}) local a={} while true do a[#a+1]=cmsgpack.unpack(s) end`,
	"sparse, dropped":       `while true do local t={} t[400000]=1 end`,
	"many values":           `local t={} for i=1,8000 do t[i]=i end local k={} while true do k[#k+1]={unpack(t)} end`,
	"metamethods":           `local t=setmetatable({},{}) getmetatable(t).__index=function(t,k) return 1 end while true do local x=t.y end`,
	"loads":                 `while true do loadstring(string.rep('x=1 ',1000)) end`,
	"load":                  `return load(function() return 'x=1 ' end)`,
	"json decodes":          `local s='['..string.rep('[],',100000)..'1]' local t={} while true do t[#t+1]=cjson.decode(s) end`,
	"foreach":               `local t={1} while true do table.foreach(t,function() end) end`,
	"sha1":                  `local s=string.rep('x',1000000) while true do redis.sha1hex(s) end`,
	"next":                  `local t={1,2,3} while true do for k,v in pairs(t) do end for k,v in ipairs(t) do end end`,
}

// TestScriptsEnd: each ends by a bound, whatever it does, and the next one runs as
// if nothing had been.
func TestScriptsEnd(t *testing.T) {
	e := NewEngine(testOptions())
	for name, source := range endless {
		t.Run(name, func(t *testing.T) {
			answer, ended := runs(e, source)
			if ended == NotEnded || ended == ByKill || ended == ByFailure || !strings.HasPrefix(answer, "-ERR script ended ") {
				t.Errorf("ended: %v, %.200q", ended, answer)
			}
			if answer, _ := runs(e, "return 'fine'"); answer != "$4\r\nfine\r\n" {
				t.Errorf("afterwards: %q", answer)
			}
		})
	}
}

// refused are scripts that fail before they can do harm.
var refused = map[string]struct{ source, why string }{
	"recursion":           {`local function f() return 1+f() end return f()`, "stack overflow"},
	"recursion of pcall":  {`local function f() local ok,e=pcall(f) if not ok then error(e) end return 1+f() end return f()`, ""},
	"recursion of index":  {`local m={} m.__index=function(t,k) return t[k..'x'] end return setmetatable({},m).x`, ""},
	"recursion of concat": {`local m={} m.__concat=function(a,b) return a..b end local t=setmetatable({},m) return t..t`, ""},
	"recursion of text":   {`local m={} m.__tostring=function(t) return tostring(t) end return tostring(setmetatable({},m))`, ""},
	"recursion of calls":  {`local m={} m.__call=function(t) return t() + 1 end return setmetatable({},m)()`, ""},
	"rep":                 {`return string.rep('x',1e9)`, "script ended"},
	"rep of more":         {`return ('x'):rep(1e10)`, ""},
	"rep of repeats":      {`local s=('x'):rep(1e6) return s:rep(1e6)`, ""},
	"unpack":              {`return unpack({},1,1e8)`, "too many results to unpack"},
	"unpack of overflow":  {`return unpack({},-9007199254740992,9007199254740992)`, "too many results to unpack"},
	"bytes":               {`return string.byte(string.rep('x',1000000),1,-1)`, "string slice too long"},
	"format":              {`return string.format('%99999999d',1)`, "invalid format"},
	"json in itself":      {`local t={} t[1]=t return cjson.encode(t)`, "excessive nesting"},
	"json of brackets":    {`return cjson.decode(string.rep('[',1000000))`, "too many nested"},
	"msgpack of lists":    {`return cmsgpack.unpack(string.rep('\145',1000000))`, "nested too deeply"},
	"msgpack of a length": {`return cmsgpack.unpack('\221\255\255\255\255')`, "Missing bytes"},
	"pattern":             {`return string.find(string.rep('a',1000), string.rep('a?',1000))`, "pattern too complex"},
	"brackets":            {`return loadstring('return '..string.rep('(',30000))()`, ""},
	"nots":                {`return loadstring('return '..string.rep('not ',30000)..'1')()`, ""},
	"functions":           {`return loadstring(string.rep('return function() ',10000)..string.rep(' end',10000))()`, ""},
	"blocks":              {`return loadstring(string.rep('do ',10000)..string.rep(' end',10000))()`, ""},
	"sum":                 {`return loadstring('return 1'..string.rep('+1',30000))()`, ""},
	"binary":              {`return loadstring('\27Lua')()`, ""},
}

// TestStringsAreNumbers: what reads as a number is one wherever Lua wants a number,
// as all that scripts are given in ARGV is a string. The answers are Redis'.
func TestStringsAreNumbers(t *testing.T) {
	e := NewEngine(testOptions())
	for _, c := range []struct{ source, want string }{
		{`local n=0 for i='1','6','2' do n=n+i end return n`, ":9\r\n"},
		{`local f=function() return '2','x' end local n=0 for i=1,f() do n=n+1 end return n`, ":2\r\n"},
		{`local t={n='2'} local n=0 for i=t.n,1,-1 do n=n+1 end return n`, ":2\r\n"},
		{`return string.sub('hello','2','3')`, "$2\r\nel\r\n"},
		{`return string.sub('hello',2.7)`, "$4\r\nello\r\n"},
		{`return ('ab'):rep('2')`, "$4\r\nabab\r\n"},
		{`return string.char('65')`, "$1\r\nA\r\n"},
		{`return {string.byte('abc','2','3')}`, "*2\r\n:98\r\n:99\r\n"},
		{`return string.find('hello','l','4')`, ":4\r\n"},
		{`return string.gsub('aaa','a','b','2')`, "$3\r\nbba\r\n"},
		{`return string.format('%c%d','65','7')`, "$2\r\nA7\r\n"},
		{`return {unpack({1,2,3},'2','3')}`, "*2\r\n:2\r\n:3\r\n"},
		{`return select('2','a','b')`, "$1\r\nb\r\n"},
		{`return select('#','a','b')`, ":2\r\n"},
		{`return table.concat({'a','b','c'},',','2','3')`, "$3\r\nb,c\r\n"},
		{`local t={1,2} table.insert(t,'2',9) return t`, "*3\r\n:1\r\n:9\r\n:2\r\n"},
		{`return table.remove({1,2,3},'2')`, ":2\r\n"},
		{`return math.ldexp(1,'3')`, ":8\r\n"},
		{`math.randomseed('7') return math.random('2','2')`, ":2\r\n"},
		{`return tonumber('11','2')`, ":3\r\n"},
		{`return {tonumber('+-5',16) or 'none', tonumber('-+5',16) or 'none', tonumber('+5',16)}`, "*3\r\n$4\r\nnone\r\n$4\r\nnone\r\n:5\r\n"},
		{`local n=0 for _,s in ipairs{'nan','-nan','+NaN'} do local x=tonumber(s) if x and x~=x then n=n+1 end end return n`, ":3\r\n"},
		{`return tostring(0xffffffffffffffff)`, "$18\r\n1.844674407371e+19\r\n"},
		{`return tostring(1e400) .. tostring(-1e400) .. 010`, "$9\r\ninf-inf10\r\n"},
		{`redis.setresp('3') return 1`, ":1\r\n"},
		{`return cmsgpack.unpack_one(cmsgpack.pack(5),'0')`, ":-1\r\n"},
	} {
		if got, _ := runs(e, c.source); got != c.want {
			t.Errorf("%s: %q, want %q", c.source, got, c.want)
		}
	}
	for _, source := range []string{`for i=1,'x' do end`, `for i={},1 do end`, `return select('x',1)`, `return ('a'):rep('x')`} {
		if got, _ := runs(e, source); got[0] != '-' {
			t.Errorf("%s: %q, want an error", source, got)
		}
	}
}

// TestLoopsBeginWithNil: a loop over fewer than three values has nil in the place
// of those that are not there, whatever was in that register before.
func TestLoopsBeginWithNil(t *testing.T) {
	e := NewEngine(testOptions())
	for _, c := range []struct{ source, want string }{
		{`local t={1,2,3} for k in next,t do t[k]=7 end return t`, "*3\r\n:7\r\n:7\r\n:7\r\n"},
		{`for i=1,2 do local n=0 for k in next,{7,8,9} do n=n+k end if n~=6 then return n end end`, "$-1\r\n"},
		{`local function f(a,b) if b==nil then return a==nil and 1 or 2 end end for i=1,2 do for x in f do if x~=1 then return x end break end end return 'ok'`, "$2\r\nok\r\n"},
		{`local function three() return next,{a=5},nil end for k,v in three() do return v end`, ":5\r\n"},
		{`local function f() return next end local t={1,2,3} for k in (f()),t do t[k]=8 end return t[1]`, ":8\r\n"},
		{`local f=function() local x=0 return function(_,c) x=x+1 if c then return nil end return x end end local a,b,c=1,2,3 for x in (f()) do a=x end return a`, ":1\r\n"},
		{`local function f(...) for k,v in ... do return v end end return f(next,{a=6})`, ":6\r\n"},
	} {
		if got, _ := runs(e, c.source); got != c.want {
			t.Errorf("%s: %q, want %q", c.source, got, c.want)
		}
	}
}

// TestKeysAreHashed: what is set by a number is there, as Lua has it, be the key
// part of an array or far from all others, and takes no memory for what is between.
func TestKeysAreHashed(t *testing.T) {
	e := NewEngine(testOptions())
	for _, c := range []struct{ source, want string }{
		{`local t={} t[60000000]=1 t[4294967296]=2 t[-1]=3 t[0.5]=4 local n=0 for k,v in pairs(t) do n=n+v end return {n,t[60000000],t[4294967296],t[-1],t[0.5]*1}`, "*5\r\n:10\r\n:1\r\n:2\r\n:3\r\n:4\r\n"},
		{`local t={[60000000]=1,[60000001]=2} t[60000000],t[60000001]=t[60000001],t[60000000] return {t[60000000],t[60000001]}`, "*2\r\n:2\r\n:1\r\n"},
		{`local t={} for i=1,9 do t[ARGV and i]=i end return #t`, ":9\r\n"},
		{`local t={} for i=1,100000 do t[i]=i end for i=100000,1,-1 do t[i]=-t[i] end return {#t,t[1],t[100000]}`, "*3\r\n:100000\r\n:-1\r\n:-100000\r\n"},
		{`local function none() end local function two() return 1,2 end local t,k={5},1 t[k]=none() local u={} u[k]=two() return {t[1]==nil,u[1],u[2] or 'nil'}`, "*3\r\n:1\r\n:1\r\n$3\r\nnil\r\n"},
		{`local t,k={},'a' t[k]=... return t.a or 'none'`, "$4\r\nnone\r\n"},
		{`local o={} local function say(x) o[#o+1]=x return x end local t={} t[say('k')]=say('v') return o`, "*2\r\n$1\r\nk\r\n$1\r\nv\r\n"},
		{`local k,t='b',setmetatable({},{__newindex=function(t,k,v) rawset(t,k,v..'!') end}) t[k]='x' return t.b`, "$2\r\nx!\r\n"},
		{`local f=loadstring('local t,k={},5 t[k]=7 return t[5]') return f()`, ":7\r\n"},
	} {
		if got, _ := runs(e, c.source); got != c.want {
			t.Errorf("%s: %q, want %q", c.source, got, c.want)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if got, _ := runs(e, `local t={} t[60000000]=1 return t[60000000]`); got != ":1\r\n" {
		t.Errorf("%q, want 1", got)
	}
	if got, ended := runs(e, `local t={} t[4000000]=1 return 1`); ended != ByMemory {
		t.Errorf("an array as large as eight times what a script may take: %q", got)
	}
	if runtime.ReadMemStats(&after); after.TotalAlloc-before.TotalAlloc > 16<<20 {
		t.Errorf("two elements took %d bytes", after.TotalAlloc-before.TotalAlloc)
	}
	for source, why := range map[string]string{
		"local t,k=nil,1\nt[k]=2":                        "user_script:2: attempt to index a nil value",
		"local t,k={},nil\n\nt[k]=2":                     "user_script:3: table index is nil",
		"local k='x'\n_G[k]=2":                           "user_script:2: " + readonlyTable,
		"local t={}\nt[0/0]=1":                           "user_script:2: table index is NaN",
		"local s,k='x',1\ns[k]=1":                        "user_script:2: attempt to index a string value",
		"return {[cjson.decode('null')]=nil,\n[1+{}]=2}": "attempt to perform arithmetic on a table value",
	} {
		if got, _ := runs(e, source); !strings.Contains(got, why) {
			t.Errorf("%s: %q, want %q in it", source, got, why)
		}
	}
}

func TestScriptsAreRefused(t *testing.T) {
	e := NewEngine(testOptions())
	for name, c := range refused {
		t.Run(name, func(t *testing.T) {
			answer, _ := runs(e, c.source)
			if !strings.HasPrefix(answer, "-ERR ") || !strings.Contains(answer, c.why) {
				t.Errorf("%.200q, want %q in it", answer, c.why)
			}
		})
	}
	for name, source := range map[string]string{
		"nested":     "return " + strings.Repeat("{", maxDepth+1) + strings.Repeat("}", maxDepth+1),
		"parens":     strings.Repeat("f(", maxDepth+1) + strings.Repeat(")", maxDepth+1),
		"long":       strings.Repeat(" ", MaxSourceBytes+1),
		"brackets":   "return " + strings.Repeat("(", 500_000),
		"registers":  "return '1'" + strings.Repeat("..'1'", 1000),
		"upvalues":   "local a" + strings.Repeat(",a", 300),
		"half":       "return [[",
		"a zero":     "return \x00",
		"not text":   "\xff\xfe",
		"deep index": "return a" + strings.Repeat("[a", maxDepth) + strings.Repeat("]", maxDepth),
	} {
		if answer, _ := runs(e, source); !strings.HasPrefix(answer, "-ERR ") {
			t.Errorf("%s: %.100q", name, answer)
		}
	}
}

// TestScriptsLeaveNothing: what one script does to what all share, another does
// not see.
func TestScriptsLeaveNothing(t *testing.T) {
	e := NewEngine(testOptions())
	for _, source := range []string{
		"x = 1", "_G.x = 1", "rawset(_G,'x',1)", "string.x = 1", "rawset(string,'rep',1)", "table.insert(_G, 1)", "table.sort(redis)",
		"setmetatable(_G, {})", "setmetatable(string, nil)", "redis.call = nil", "KEYS = nil", "_G._G = nil",
		"setmetatable(1, {})", "setmetatable(true, {})", "setmetatable('', {})", "setmetatable(next, {})", "setmetatable(cjson.null, {})",
		"setmetatable(coroutine.create(function() end), {})", "getmetatable('').__index = nil", "getmetatable(_G).__index = nil", "table.remove(_G)", "next(_G).x = 1",
		"for k, v in pairs(_G) do v.x = 1 end", "cjson.null.x = 1", "table.foreach(_G, function(k, v) if type(v) == 'table' then rawset(v, 'x', 1) end end)",
	} {
		if answer, _ := runs(e, source); !strings.HasPrefix(answer, "-ERR ") {
			t.Errorf("%s: %q", source, answer)
		}
	}
	for _, source := range []string{
		"cjson.encode_max_depth(5)", "redis.setresp(3)", "KEYS[1] = 'x'", "coroutine.wrap(function() coroutine.yield() end)()",
		"local t = getmetatable('abc') return t", "cjson.encode_invalid_numbers(true)",
	} {
		runs(e, source)
	}
	if answer, _ := runs(e, "return {#KEYS, cjson.encode_max_depth(), string.rep('a', 2), true, tostring(x == nil)}"); !strings.Contains(answer, "'x'") {
		t.Errorf("got %q", answer)
	}
	if answer, _ := runs(e, "return {#KEYS, cjson.encode_max_depth(), string.rep('a', 2), true}"); answer != "*4\r\n:0\r\n:1000\r\n$2\r\naa\r\n:1\r\n" {
		t.Errorf("got %q", answer)
	}
	if answer, _ := runs(e, "local n = 0 for k in pairs(_G) do n = n + 1 end return n > 25"); answer != ":1\r\n" {
		t.Errorf("pairs(_G): %q", answer)
	}
}

// TestScriptsAreTimedAndKilled by a clock of the test's own, and by a flag.
func TestScriptsAreTimedAndKilled(t *testing.T) {
	now := time.Unix(0, 0)
	o := testOptions()
	o.MaxSteps, o.Timeout = 1<<40, time.Second
	o.Flags = map[string]string{"Timeout": " (--a.flag)"}
	o.Now = func() time.Time { now = now.Add(time.Millisecond); return now }
	e := NewEngine(o)
	answer, ended := runs(e, "while true do end")
	if want := "-ERR script ended after 1s (--a.flag); what it has written stays script: "; ended != ByTime || !strings.HasPrefix(answer, want) {
		t.Errorf("%v %q", ended, answer)
	}
	p, err := Compile([]byte("while true do redis.call('x') end"))
	if err != nil {
		t.Fatal(err)
	}
	o.Now = time.Now
	o.Timeout = time.Hour
	killed := new(atomic.Bool)
	n := 0
	var r resp.Reply
	ended = NewEngine(o).Run(p, &Run{Killed: killed, Call: func([][]byte, bool) []byte {
		if n++; n == 100 {
			killed.Store(true)
		}
		return []byte("+OK\r\n")
	}}, &r)
	if want := "-ERR Script killed by user with SCRIPT KILL. script: "; ended != ByKill || !strings.HasPrefix(string(r.B), want) {
		t.Errorf("%v %q", ended, r.B)
	}
}

// TestPatternsAsTables: a few that lstrlib.c's own tests have.
func TestPatternsAsTables(t *testing.T) {
	e := NewEngine(testOptions())
	for expression, want := range map[string]string{
		`string.find('alo','')`:                            "1 0",
		`string.find('alo alo','lo',-3)`:                   "6 7",
		`string.find('a','a',3)`:                           "nil",
		`string.find('','')`:                               "1 0",
		`string.find('alo','',10)`:                         "4 3",
		`string.match('aaab','.*b')`:                       "aaab",
		`string.match('aaa','.-$')`:                        "aaa",
		`string.match('alo xo','.o$')`:                     "xo",
		`string.match(' \n isto é assim','%S%S*')`:         "isto",
		`string.match(' \n isto','%S*$')`:                  "isto",
		`string.match('um caracter ? extra','[^%sa-z]')`:   "?",
		`string.match('alo','[]]')`:                        "nil",
		`string.match('a]b','[]]')`:                        "]",
		`string.match('a-b','[a%-]+')`:                     "a-",
		`string.match('a-b','[-a]+')`:                      "a-",
		`string.match('0123456789','(.+(.?)())')`:          "0123456789  11",
		`string.gsub('ülo ülo','ü','x')`:                   "xlo xlo 2",
		`string.gsub('alo úlo  ',' +$','')`:                "alo úlo 1",
		`string.gsub('  alo alo  ','^%s*(.-)%s*$','%1')`:   "alo alo 1",
		`string.gsub('abç d','(.)','%1@',2)`:               "a@b@ç d 2",
		`string.gsub('abc','%w','%1%0')`:                   "aabbcc 3",
		`string.gsub('um (dois) tres','%((%w*)%)','%1')`:   "um dois tres 1",
		`string.gsub('alo','$','x')`:                       "alox 1",
		`string.gsub('first second word','%w+','%0 %0',1)`: "first first second word 1",
		`string.gsub('trocar tudo','t','%%')`:              "%rocar %udo 2",
		`string.gsub('x=1, y=2','(%w)=(%w)','%2=%1')`:      "1=x, 2=y 2",
		`string.match('==[[x]]==','%[%[(.-)%]%]')`:         "x",
		`string.match('aaa bbb','%f[%w]%w+$')`:             "bbb",
		`string.match('[[]]','%b[]')`:                      "[[]]",
		`string.match('2024-11-28','(%d+)-(%d+)-(%d+)')`:   "2024 11 28",
		`string.match('\0a','%z(.)')`:                      "a",
		`string.match('hello','h()ell()o')`:                "2 5",
	} {
		source := "local r = {" + expression + "} local n = select('#', " + expression + ") local s = '' for i = 1, n do s = s .. (i > 1 and ' ' or '') .. tostring(r[i]) end return s"
		if answer, _ := runs(e, source); answer != fmt.Sprintf("$%d\r\n%s\r\n", len(want), want) {
			t.Errorf("%s: %q, want %q", expression, answer, want)
		}
	}
}

// FuzzScripts: whatever is compiled runs to an end and gives one answer, and the
// next script is not disturbed.
func FuzzScripts(f *testing.F) {
	for _, s := range endless {
		f.Add(s)
	}
	for _, c := range refused {
		f.Add(c.source)
	}
	f.Add("return {KEYS, ARGV, {ok='x'}, cjson.decode('[1]'), bit.tohex(1), {double=1}, {map={1}}}")
	f.Fuzz(func(t *testing.T, source string) {
		o := testOptions()
		o.MaxSteps, o.MaxBytes = 20_000, 8<<20
		e := NewEngine(o)
		answer, _ := runs(e, source)
		if answer == "" || !strings.HasSuffix(answer, "\r\n") && answer[0] != '-' {
			t.Errorf("%q: %q", source, answer)
		}
		if answer, _ := runs(e, "return string.rep('a',2)..#KEYS"); answer != "$3\r\naa0\r\n" {
			t.Errorf("after %q: %q", source, answer)
		}
	})
}

// BenchmarkRun is what a script costs that compares and deletes.
func BenchmarkRun(b *testing.B) {
	p, err := Compile([]byte("if redis.call('get',KEYS[1]) == ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end"))
	if err != nil {
		b.Fatal(err)
	}
	o := testOptions()
	e := NewEngine(o)
	keys := [][]byte{[]byte("key")}
	args := [][]byte{[]byte("key")}
	var r resp.Reply
	killed := new(atomic.Bool)
	b.ReportAllocs()
	for b.Loop() {
		r.B = r.B[:0]
		e.Run(p, &Run{Keys: keys, Args: args, Call: echo, Killed: killed}, &r)
	}
}
