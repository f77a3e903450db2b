// Package lockcheck checks that names say which functions need a lock.
//
// The rule is this, for a type with a mutex and the fields below it, which the
// mutex guards:
//
//	xLocked     needs the lock when it is called, and leaves it held. If it lets
//	            go of it in between, its comment says "lets go of the lock"
//	xAndUnlock  needs the lock when it is called, and lets go of it
//	x           takes the lock itself, or has no use for it
//
// A function needs the lock if it uses a guarded field, or calls a function
// that needs it, before it takes the lock itself. So a name that is wrong, in
// either direction, is found, as is a function that needs the lock and is called
// where nothing says that it is held, and one that takes it while it is held.
//
// What is looked at is one package and its syntax. Function literals count as
// part of the function in which they stand; calls through values and interfaces
// are not followed. That a lock that is taken is taken first, rather than in
// another branch, is left to the race detector.
package lockcheck

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Rule says what to look at.
type Rule struct {
	Dir   string   // of the package; "" is the one whose tests run
	Type  string   // a struct with a mutex
	Mutex string   // the field that is the mutex: those below it are guarded
	Parts []string // structs that stand below the mutex, of which all fields are guarded

	// Except names functions, "Type.method" or "function", for which syntax does
	// not tell, and says why: those that use what is guarded under a lock that
	// another took, and those that need the lock for what pointers lead to.
	Except map[string]string
}

// Test fails t for all that breaks the rule, and if fewer functions than least
// need the lock: then what is guarded was not found.
func Test(t *testing.T, r Rule, least int) {
	t.Helper()
	faults, needing, err := Check(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		t.Error(f)
	}
	if needing < least {
		t.Errorf("only %d functions need the lock, of at least %d", needing, least)
	}
}

// Check returns what breaks the rule, by position, and how many functions need
// the lock. The error is that of reading the package.
func Check(r Rule) (faults []string, needing int, err error) {
	c := checker{rule: r, fset: token.NewFileSet(), funcs: map[types.Object]*function{}, guarded: map[types.Object]bool{}}
	if err := c.load(); err != nil {
		return nil, 0, err
	}
	if err := c.guard(); err != nil {
		return nil, 0, err
	}
	for _, f := range c.files {
		for _, d := range f.Decls {
			if d, ok := d.(*ast.FuncDecl); ok && d.Body != nil {
				c.read(d)
			}
		}
	}
	before := func(f *function) bool { return f.first != "Lock" }
	c.spread(func(f *function) *bool { return &f.needs }, before, func(g *function) bool { return g.ofType || c.locked(g) })
	c.spread(func(f *function) *bool { return &f.lets }, before, c.locked)
	c.spread(func(f *function) *bool { return &f.takes }, func(f *function) bool { return f.first == "" }, func(*function) bool { return true })
	for _, f := range c.sorted() {
		if f.needs {
			needing++
		}
		faults = append(faults, c.judge(f)...)
	}
	for name := range r.Except {
		if !c.excepted[name] {
			faults = append(faults, fmt.Sprintf("%s: is an exception, and needs none", name))
		}
	}
	return faults, needing, nil
}

// function is what is known of one that is declared in the package.
type function struct {
	name     string // with its receiver's type
	doc      string
	at       token.Pos
	ofType   bool   // a method of the type or of a part
	first    string // what it does first to the mutex: Lock, Unlock, or nothing
	needs    bool   // the lock when it is called
	lets     bool   // go of a lock that was held when it was called
	takes    bool   // the lock, or calls what does, before it lets go of it
	calls    []*types.Func
	receiver string
}

type checker struct {
	rule     Rule
	fset     *token.FileSet
	files    []*ast.File
	pkg      *types.Package
	info     types.Info
	guarded  map[types.Object]bool
	funcs    map[types.Object]*function
	excepted map[string]bool
}

// load parses the package and finds what its identifiers mean. Other packages
// are not read: what has their types stays unknown.
func (c *checker) load() error {
	p, err := build.ImportDir(cmp.Or(c.rule.Dir, "."), 0)
	if err != nil {
		return err
	}
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(c.fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		c.files = append(c.files, f)
	}
	c.info = types.Info{
		Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{},
		Selections: map[*ast.SelectorExpr]*types.Selection{}, Types: map[ast.Expr]types.TypeAndValue{},
	}
	config := types.Config{Importer: unread{}, Error: func(error) {}}
	c.pkg, _ = config.Check(p.ImportPath, c.fset, c.files, &c.info) // the errors are those of what was not read
	c.excepted = map[string]bool{}
	return nil
}

// unread imports every package as an empty one.
type unread struct{}

func (unread) Import(path string) (*types.Package, error) {
	p := types.NewPackage(path, path[strings.LastIndexByte(path, '/')+1:])
	p.MarkComplete()
	return p, nil
}

// guard notes the fields that the lock guards: none that is atomic.
func (c *checker) guard() error {
	for i, name := range append([]string{c.rule.Type}, c.rule.Parts...) {
		o := c.pkg.Scope().Lookup(name)
		if o == nil {
			return fmt.Errorf("lockcheck: no type %s in %s", name, c.rule.Dir)
		}
		st, ok := o.Type().Underlying().(*types.Struct)
		if !ok {
			return fmt.Errorf("lockcheck: %s is no struct", name)
		}
		below := i > 0
		for k := range st.NumFields() {
			f := st.Field(k)
			if below && !c.atomic(f) {
				c.guarded[f] = true
			}
			below = below || f.Name() == c.rule.Mutex
		}
		if !below {
			return fmt.Errorf("lockcheck: %s has no field %s", name, c.rule.Mutex)
		}
	}
	return nil
}

// atomic reports whether a field is of a type of sync/atomic.
func (c *checker) atomic(f *types.Var) (is bool) {
	for _, file := range c.files {
		if file.FileStart > f.Pos() || f.Pos() >= file.FileEnd {
			continue
		}
		ast.Inspect(file, func(n ast.Node) bool {
			field, ok := n.(*ast.Field)
			if !ok || field.Pos() > f.Pos() || f.Pos() >= field.End() {
				return true
			}
			s, ok := field.Type.(*ast.SelectorExpr)
			if ok {
				x, _ := s.X.(*ast.Ident)
				is = is || x != nil && x.Name == "atomic"
			}
			return true
		})
	}
	return is
}

// read notes what a function does to the mutex, what guarded fields it uses, and
// which functions it names.
func (c *checker) read(d *ast.FuncDecl) {
	o := c.info.Defs[d.Name]
	f := &function{name: d.Name.Name, doc: d.Doc.Text(), at: d.Pos()}
	if d.Recv != nil {
		f.receiver = named(c.info.TypeOf(d.Recv.List[0].Type))
		f.name = f.receiver + "." + f.name
		f.ofType = f.receiver == c.rule.Type || slices.Contains(c.rule.Parts, f.receiver)
	}
	ast.Inspect(d.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.SelectorExpr); ok && x.Sel.Name == c.rule.Mutex && named(c.info.TypeOf(x.X)) == c.rule.Type {
				if f.first == "" {
					f.first = strings.TrimPrefix(n.Sel.Name, "Try")
				}
			}
			if c.guarded[c.info.Uses[n.Sel]] && f.first != "Lock" {
				f.needs = true
			}
		case *ast.Ident:
			use := c.info.Uses[n]
			if fn, ok := use.(*types.Func); ok && fn.Pkg() == c.pkg {
				f.calls = append(f.calls, fn.Origin())
			}
		}
		return true
	})
	f.takes = f.first == "Lock"
	f.lets = f.first == "Unlock" && c.locked(f)
	f.needs = f.needs || f.lets
	c.funcs[o] = f
}

// named is the name of a type, or of what it points to.
func named(t types.Type) string {
	if p, ok := t.(*types.Pointer); ok {
		t = p.Elem()
	}
	if n, ok := t.(*types.Named); ok {
		return n.Obj().Name()
	}
	return ""
}

// spread hands what functions do, those of from, on to those of to that call them.
func (c *checker) spread(what func(*function) *bool, to, from func(*function) bool) {
	for changed := true; changed; {
		changed = false
		for _, f := range c.funcs {
			if *what(f) || !to(f) {
				continue
			}
			for _, fn := range f.calls {
				if g := c.funcs[fn]; g != nil && from(g) && *what(g) {
					*what(f), changed = true, true
					break
				}
			}
		}
	}
}

func (c *checker) sorted() (list []*function) {
	for _, f := range c.funcs {
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b *function) int { return cmp.Compare(a.at, b.at) })
	return list
}

// locked reports whether a name says that the lock is needed.
func (c *checker) locked(f *function) bool {
	return strings.HasSuffix(f.name, "Locked") || strings.HasSuffix(f.name, "AndUnlock")
}

// judge says what is wrong with a function.
func (c *checker) judge(f *function) (faults []string) {
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Sprintf("%s: %s %s", c.fset.Position(f.at), f.name, fmt.Sprintf(format, args...)))
	}
	_, excepted := c.rule.Except[f.name]
	switch named := c.locked(f); {
	case named && f.first == "Lock":
		fault("takes the lock, and is named as if it were held")
	case named && f.ofType && !f.needs && !excepted:
		fault("needs no lock, and is named as if it did")
	case named && f.ofType && !f.needs:
		c.excepted[f.name] = true
	case f.needs && !named && f.ofType:
		fault("needs the lock, and its name does not end in Locked")
	case f.needs && !named && f.first == "" && !excepted:
		fault("uses what the lock guards, and neither takes it nor says in its name that it is held")
	case f.needs && !named && f.first == "":
		c.excepted[f.name] = true
	}
	if c.locked(f) && f.first == "" && f.takes {
		fault("needs the lock, and calls what takes it")
	}
	if strings.HasSuffix(f.name, "Locked") && f.lets && !strings.Contains(strings.Join(strings.Fields(f.doc), " "), "lets go of the lock") {
		fault("lets go of the lock in between: its comment has to say so, in these words")
	}
	return faults
}
