// Sessions of Express in connect-redis: three visits of one visitor count 1, 2, 3.
import assert from 'node:assert';
import http from 'node:http';
import { RedisStore } from 'connect-redis';
import session from 'express-session';
import { createClient } from 'redis';
import until from './until.js';

until.run(async (port) => {
  const client = createClient({ url: `redis://127.0.0.1:${port}` });
  await client.connect();
  const store = new RedisStore({ client, prefix: 'shop:' });
  const sessions = session({ store, resave: false, saveUninitialized: false, secret: 'of a test' });
  const server = http.createServer((req, res) => sessions(req, res, (err) => {
    if (err) return res.writeHead(500).end(String(err));
    if (req.url === '/bye') return req.session.destroy((e) => res.end(String(e)));
    req.session.visits = (req.session.visits ?? 0) + 1;
    res.end(String(req.session.visits));
  }));
  await new Promise((r) => server.listen(0, '127.0.0.1', r));
  const site = `http://127.0.0.1:${server.address().port}`;
  let cookie = '';
  const visit = async (path) => {
    const res = await fetch(site + path, { headers: { cookie } });
    cookie = res.headers.get('set-cookie')?.split(';')[0] ?? cookie;
    return res.text();
  };
  assert.deepEqual([await visit('/'), await visit('/'), await visit('/')], ['1', '2', '3']);
  const keys = await client.keys('shop:*');
  assert.equal(keys.length, 1);
  assert.ok((await client.ttl(keys[0])) > 3600);
  const ask = (f, ...args) => new Promise((r, no) => store[f](...args, (e, v) => (e ? no(e) : r(v))));
  assert.equal(await ask('length'), 1);
  assert.equal((await ask('all'))[0].visits, 3);
  await visit('/bye');
  assert.equal(await visit('/'), '1');
  await ask('clear');
  assert.equal(await ask('length'), 0);
});
