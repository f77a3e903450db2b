const assert = require('node:assert');

// until waits for what somebody else has caused.
exports.until = async function until(what, f) {
  for (const end = Date.now() + 60000; !(await f()); await new Promise((r) => setTimeout(r, 5))) {
    assert.ok(Date.now() < end, 'waited in vain for ' + what);
  }
};

// run gives the port to a client's function and tells how it went.
exports.run = function run(f) {
  f(Number(process.argv[2])).then(() => { console.log('ok'); process.exit(0); }, (e) => { console.error(e); process.exit(1); });
};
