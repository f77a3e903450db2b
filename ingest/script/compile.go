package script

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/ast"
	"github.com/yuin/gopher-lua/parse"
)

// MaxSourceBytes bounds a script. To compile it takes some 50 to 100 times as much.
const MaxSourceBytes = 1 << 20

// CompiledBytes is about what a script of so many bytes takes while it is compiled.
func CompiledBytes(source int) int64 { return 64 * int64(source) }

// maxDepth bounds how deep a script's expressions and blocks are nested, which the
// compiler descends by recursion. A sum of so many terms counts as that deep.
const maxDepth = 4000

const chunkName = "user_script"

// Program is a compiled script. It does not change.
type Program struct {
	SHA      string // 40 digits
	Bytes    int    // of the source
	NoWrites bool   // said by its first line
	Writes   bool   // its first line does not say so, if there is one
	OneSlot  bool   // its commands' keys must be of one slot of a cluster, likewise
	proto    *lua.FunctionProto
}

// SHA is the name of a script.
func SHA(source []byte) string {
	sum := sha1.Sum(source)
	return hex.EncodeToString(sum[:])
}

// Compile compiles a script. The error is what Redis would answer.
func Compile(source []byte) (*Program, error) {
	if len(source) > MaxSourceBytes {
		return nil, fmt.Errorf("ERR script of %d bytes is too long, the limit is %d", len(source), MaxSourceBytes)
	}
	p := &Program{SHA: SHA(source), Bytes: len(source)}
	text := source
	if bytes.HasPrefix(text, []byte("#!")) {
		end := bytes.IndexByte(text, '\n')
		if end < 0 {
			return nil, errors.New("ERR Invalid script shebang")
		}
		p.OneSlot = true // as Redis has it: without such a line any slots of this node will do
		if err := p.shebang(string(text[:end])); err != nil {
			return nil, err
		}
		p.Writes = !p.NoWrites
		text = text[end:] // its line counts
	}
	var err error
	if p.proto, err = prototypeOf(text, chunkName); err != nil {
		return nil, fmt.Errorf("ERR Error compiling script (new function): %w", err)
	}
	return p, nil
}

// shebang reads the first line of a script, which says what it may do.
func (p *Program) shebang(line string) error {
	words := strings.Fields(line)
	if words[0] != "#!lua" {
		return errors.New("ERR Unexpected engine in script shebang: " + words[0])
	}
	for _, w := range words[1:] {
		flags, ok := strings.CutPrefix(w, "flags=")
		if !ok {
			return errors.New("ERR Unknown lua shebang option: " + w)
		}
		for f := range strings.SplitSeq(flags, ",") {
			switch f {
			case "no-writes":
				p.NoWrites = true
			case "allow-cross-slot-keys":
				p.OneSlot = false
			case "allow-oom", "allow-stale", "no-cluster", "":
			default:
				return errors.New("ERR Unexpected flag in script shebang: " + f)
			}
		}
	}
	return nil
}

// prototypeOf makes a function that, called with the helpers, returns the chunk.
func prototypeOf(text []byte, name string) (proto *lua.FunctionProto, err error) {
	defer func() {
		if r := recover(); r != nil {
			proto, err = nil, fmt.Errorf("%s: %v", name, r) // a bound of the compiler's
		}
	}()
	chunk, err := parse.Parse(bytes.NewReader(text), name)
	if err != nil {
		return nil, syntaxError(err, name, text)
	}
	r := rewriter{}
	r.stmts(chunk)
	if r.deep > 0 {
		return nil, fmt.Errorf("%s:%d: chunk has too many syntax levels", name, r.deep)
	}
	if r.malformed != nil {
		return nil, fmt.Errorf("%s:%d: malformed number near '%s'", name, max(r.malformed.Line(), 1), strings.TrimSuffix(r.malformed.Value, "\xff")) // which is the end
	}
	inner := &ast.FunctionExpr{ParList: &ast.ParList{HasVargs: true}, Stmts: chunk}
	outer := &ast.FunctionExpr{ParList: &ast.ParList{Names: helperNames}, Stmts: []ast.Stmt{&ast.ReturnStmt{Exprs: []ast.Expr{inner}}}}
	last := 1 + bytes.Count(text, []byte("\n"))
	for _, f := range []*ast.FunctionExpr{inner, outer} {
		f.SetLine(1)
		f.SetLastLine(last)
	}
	whole, err := lua.Compile([]ast.Stmt{&ast.ReturnStmt{Exprs: []ast.Expr{outer}}}, name)
	if err != nil {
		if c := (*lua.CompileError)(nil); errors.As(err, &c) {
			return nil, fmt.Errorf("%s:%d: %s", name, c.Line, c.Message)
		}
		return nil, err
	}
	return whole.FunctionPrototypes[0], nil
}

// syntaxError words an error as Lua does, as far as it can be known.
func syntaxError(err error, name string, text []byte) error {
	p := (*parse.Error)(nil)
	if !errors.As(err, &p) {
		return err
	}
	line, token, message := p.Pos.Line, p.Token, p.Message
	if line == parse.EOF {
		line, token = 1+bytes.Count(text, []byte("\n")), "<eof>"
	}
	switch message {
	case "syntax error":
		message = "unexpected symbol"
	case "parse error": // of an expression where a statement should be
		message = "'=' expected"
	case "unterminated string":
		message = "unfinished string"
	}
	return fmt.Errorf("%s:%d: %s near '%s'", name, line, message, token)
}

// rewriter makes calls of ".." and of what sets elements, and numbers of the bounds of
// loops, and measures how deep a tree is. A call costs a script 90 ns: half as much
// again as a loop that does nothing but set elements takes.
type rewriter struct {
	depth int
	deep  int // the line where it is too deep, 0 for nowhere
	// malformed is the first number that is none, nil for none.
	malformed *ast.NumberExpr
}

func (r *rewriter) enter(p ast.PositionHolder) bool {
	if r.depth++; r.depth > maxDepth && r.deep == 0 {
		r.deep = max(p.Line(), 1)
	}
	return r.deep == 0
}

func (r *rewriter) stmts(all []ast.Stmt) {
	for i, s := range all {
		if r.enter(s) {
			r.stmt(s)
			if a, ok := s.(*ast.AssignStmt); ok {
				all[i] = assigned(a)
			}
		}
		r.depth--
	}
}

// assigned is what stands in the place of an assignment: a call, or a call for each
// key, where elements of arrays may be set.
func assigned(s *ast.AssignStmt) ast.Stmt {
	if len(s.Lhs) == 1 && len(s.Rhs) == 1 {
		if e, ok := s.Lhs[0].(*ast.AttrGetExpr); ok && mayFill(e.Key) {
			set := &ast.FuncCallStmt{Expr: call(setName, s, e.Object, e.Key, s.Rhs[0])}
			set.SetLine(s.Line())
			set.SetLastLine(s.LastLine())
			return set
		}
	}
	for _, to := range s.Lhs {
		if e, ok := to.(*ast.AttrGetExpr); ok && mayFill(e.Key) {
			e.Key = call(keyName, e, e.Key)
		}
	}
	return s
}

// mayFill reports whether a key may be a large number.
func mayFill(key ast.Expr) bool {
	switch k := key.(type) {
	case *ast.StringExpr, *ast.TrueExpr, *ast.FalseExpr, *ast.NilExpr, *ast.TableExpr, *ast.FunctionExpr, *ast.RelationalOpExpr, *ast.UnaryNotOpExpr:
		return false
	case *ast.NumberExpr:
		n, ok := parseNumber(k.Value)
		return ok && n > smallArray
	}
	return key != nil
}

// call is of a helper, in the place of at.
func call(name string, at ast.PositionHolder, args ...ast.Expr) *ast.FuncCallExpr {
	f := &ast.IdentExpr{Value: name}
	c := &ast.FuncCallExpr{Func: f, Args: args, AdjustRet: true}
	for _, p := range []ast.PositionHolder{f, c} {
		p.SetLine(at.Line())
		p.SetLastLine(max(at.Line(), at.LastLine()))
	}
	return c
}

func (r *rewriter) stmt(s ast.Stmt) {
	switch s := s.(type) {
	case *ast.AssignStmt:
		r.exprs(s.Lhs)
		r.exprs(s.Rhs)
	case *ast.LocalAssignStmt:
		r.exprs(s.Exprs)
	case *ast.FuncCallStmt:
		s.Expr = r.expr(s.Expr)
	case *ast.DoBlockStmt:
		r.stmts(s.Stmts)
	case *ast.WhileStmt:
		s.Condition = r.expr(s.Condition)
		r.stmts(s.Stmts)
	case *ast.RepeatStmt:
		s.Condition = r.expr(s.Condition)
		r.stmts(s.Stmts)
	case *ast.IfStmt:
		s.Condition = r.expr(s.Condition)
		r.stmts(s.Then)
		r.stmts(s.Else)
	case *ast.NumberForStmt:
		s.Init, s.Limit, s.Step = number(r.expr(s.Init)), number(r.expr(s.Limit)), number(r.expr(s.Step))
		r.stmts(s.Stmts)
	case *ast.GenericForStmt:
		r.exprs(s.Exprs)
		s.Exprs = padded(s.Exprs)
		r.stmts(s.Stmts)
	case *ast.FuncDefStmt:
		s.Name.Func, s.Name.Receiver = r.expr(s.Name.Func), r.expr(s.Name.Receiver)
		r.stmts(s.Func.Stmts)
	case *ast.ReturnStmt:
		r.exprs(s.Exprs)
	}
}

func (r *rewriter) exprs(all []ast.Expr) {
	for i := range all {
		all[i] = r.expr(all[i])
	}
}

// expr is what stands in the place of e, which may be nil.
func (r *rewriter) expr(e ast.Expr) ast.Expr {
	if e == nil {
		return nil
	}
	defer func() { r.depth-- }()
	if !r.enter(e) {
		return e
	}
	switch e := e.(type) {
	case *ast.AttrGetExpr:
		e.Object, e.Key = r.expr(e.Object), r.expr(e.Key)
	case *ast.TableExpr:
		for _, f := range e.Fields {
			if f.Key, f.Value = r.expr(f.Key), r.expr(f.Value); mayFill(f.Key) {
				f.Key = call(keyName, e, f.Key)
			}
		}
	case *ast.FuncCallExpr:
		e.Func, e.Receiver = r.expr(e.Func), r.expr(e.Receiver)
		r.exprs(e.Args)
	case *ast.LogicalOpExpr:
		e.Lhs, e.Rhs = r.expr(e.Lhs), r.expr(e.Rhs)
	case *ast.RelationalOpExpr:
		e.Lhs, e.Rhs = r.expr(e.Lhs), r.expr(e.Rhs)
	case *ast.ArithmeticOpExpr:
		e.Lhs, e.Rhs = r.expr(e.Lhs), r.expr(e.Rhs)
	case *ast.UnaryMinusOpExpr:
		e.Expr = r.expr(e.Expr)
	case *ast.UnaryNotOpExpr:
		e.Expr = r.expr(e.Expr)
	case *ast.UnaryLenOpExpr:
		e.Expr = r.expr(e.Expr)
	case *ast.FunctionExpr:
		r.stmts(e.Stmts)
	case *ast.NumberExpr:
		if n, ok := parseNumber(e.Value); ok {
			e.Value = strconv.FormatFloat(float64(n), 'g', -1, 64) // the interpreter takes some for NaN, and some for octal
		} else if r.malformed == nil {
			r.malformed = e
		}
	case *ast.StringConcatOpExpr:
		return r.concat(e)
	}
	return e
}

// padded are the values that a loop begins with, which are three: the interpreter
// takes what is left in registers for those that are not there.
func padded(all []ast.Expr) []ast.Expr {
	switch last := all[len(all)-1].(type) { // one that gives as many as are wanted?
	case *ast.FuncCallExpr:
		if !last.AdjustRet {
			return all
		}
	case *ast.Comma3Expr:
		if !last.AdjustRet {
			return all
		}
	}
	for len(all) < 3 {
		end := &ast.NilExpr{}
		end.SetLine(all[0].Line())
		end.SetLastLine(all[0].LastLine())
		all = append(all, end)
	}
	return all
}

// number is e for a loop, which the interpreter wants to be a number, where Lua
// takes a string that reads as one: a sum is. It may be nil.
func number(e ast.Expr) ast.Expr {
	switch e.(type) {
	case nil, *ast.NumberExpr, *ast.ArithmeticOpExpr, *ast.UnaryMinusOpExpr, *ast.UnaryLenOpExpr:
		return e
	}
	sum := &ast.ArithmeticOpExpr{Operator: "+", Lhs: e, Rhs: &ast.NumberExpr{Value: "0"}}
	for _, p := range []ast.PositionHolder{sum, sum.Rhs} {
		p.SetLine(e.Line())
		p.SetLastLine(e.LastLine())
	}
	return sum
}

// concat makes one call of a chain of "..", which the parser nests to the right.
// Its operands take a register each, as they do in Lua.
func (r *rewriter) concat(e *ast.StringConcatOpExpr) ast.Expr {
	var parts []ast.Expr
	var rest ast.Expr = e
	for {
		c, ok := rest.(*ast.StringConcatOpExpr)
		if !ok {
			break
		}
		parts = append(parts, r.expr(c.Lhs))
		rest = c.Rhs
	}
	// A call or ... in the last place would give all its values.
	switch last := r.expr(rest).(type) {
	case *ast.FuncCallExpr:
		last.AdjustRet = true
		parts = append(parts, last)
	case *ast.Comma3Expr:
		last.AdjustRet = true
		parts = append(parts, last)
	default:
		parts = append(parts, last)
	}
	return call(concatName, e, parts...)
}
