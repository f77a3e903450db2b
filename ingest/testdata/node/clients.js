// node-redis and ioredis, each through its own connecting and a few commands.
const assert = require('node:assert');
const { BasicClientSideCache, createClient } = require('redis');
const Redis = require('ioredis');

async function nodeRedis(port, RESP) {
  const c = createClient({ socket: { host: '127.0.0.1', port }, RESP, name: 'node', unstableResp3: true });
  c.on('error', (e) => { throw e; });
  await c.connect();
  assert.equal(await c.ping(), 'PONG');
  assert.equal(await c.set('node', 'v', { EX: 100 }), 'OK');
  assert.equal(await c.get('node'), 'v');
  assert.equal(await c.get('absent'), null);
  assert.ok((await c.ttl('node')) > 90);
  assert.deepEqual(await c.mGet(['node', 'absent']), ['v', null]);
  assert.equal(await c.incrBy('count', 5), 5);
  assert.deepEqual(await Promise.all([c.incr('count'), c.incr('count'), c.del('count')]), [6, 7, 1]);
  const seen = [];
  for await (const keys of c.scanIterator({ COUNT: 100 })) seen.push(...[keys].flat());
  assert.deepEqual(seen, ['node']);
  assert.equal(await c.clientGetName(), 'node');
  const key = 'series' + RESP;
  assert.equal(await c.ts.add(key, 1000, 1.5, { LABELS: { proto: String(RESP) } }), 1000);
  assert.equal(await c.ts.add(key, 2000, 2.5), 2000);
  assert.deepEqual((await c.ts.range(key, '-', '+')).map((s) => [s.timestamp, s.value]), [[1000, 1.5], [2000, 2.5]]);
  assert.deepEqual([...await c.ts.queryIndex('proto=' + RESP)], [key]);
  const got = await c.ts.mRange('-', '+', 'proto=' + RESP);
  assert.equal(JSON.stringify(got).includes('2.5'), true);
  assert.equal((await c.ts.info(key)).totalSamples, 2);
  await assert.rejects(c.ts.get('absent'), /TSDB: the key does not exist/);
  assert.equal(await c.flushAll(), 'OK');
  await c.close();
}

async function io(port) {
  const c = new Redis({ host: '127.0.0.1', port, connectionName: 'io' });
  assert.equal(await c.set('io', 'v', 'PX', 100000, 'NX'), 'OK');
  assert.equal(await c.set('io', 'w', 'NX'), null);
  assert.equal(await c.get('io'), 'v');
  const buffer = Buffer.from([0, 255, 13, 10]);
  await c.set('bytes', buffer);
  assert.deepEqual(await c.getBuffer('bytes'), buffer);
  assert.deepEqual(await c.pipeline().set('a', 1).incr('a').get('a').get('absent').exec(),
    [[null, 'OK'], [null, 2], [null, '2'], [null, null]]);
  assert.deepEqual((await c.scan(0, 'MATCH', 'io', 'COUNT', 1000)), ['0', ['io']]);
  await assert.rejects(c.incr('io'), /not an integer/);
  assert.equal(await c.client('GETNAME'), 'io');
  await c.quit();
}

// until waits for what somebody else has caused.
async function until(what, f) {
  for (const end = Date.now() + 60000; !(await f()); await new Promise((r) => setTimeout(r, 5))) {
    assert.ok(Date.now() < end, 'waited in vain for ' + what);
  }
}

// Hashes, sets, transactions, publications and the client's own cache of what it reads.
async function nodeRedisMore(port) {
  const cache = new BasicClientSideCache({ ttl: 0, maxEntries: 0, evictPolicy: 'LRU' });
  const c = createClient({ socket: { host: '127.0.0.1', port }, RESP: 3, clientSideCache: cache });
  const other = createClient({ socket: { host: '127.0.0.1', port }, RESP: 3 });
  for (const x of [c, other]) {
    x.on('error', (e) => { throw e; });
    await x.connect();
  }
  assert.equal(await c.hSet('h', { a: '1', b: '2' }), 2);
  assert.deepEqual({ ...await other.hGetAll('h') }, { a: '1', b: '2' });
  assert.equal(await c.hIncrBy('h', 'a', 5), 6);
  assert.equal(await c.sAdd('s', ['x', 'y', 'z']), 3);
  assert.deepEqual([...await other.sMembers('s')].sort(), ['x', 'y', 'z']);
  assert.deepEqual(await other.multi().set('m', '1').incr('m').hLen('h').exec(), ['OK', 2, 2]);

  await other.set('k', 'one');
  assert.equal(await c.get('k'), 'one');
  assert.equal(await c.get('k'), 'one');
  assert.ok(cache.stats().hitCount >= 1, 'nothing was read from the cache');
  await other.set('k', 'two');
  await until('the cache to forget', async () => (await c.get('k')) === 'two');
  await other.hSet('h', 'a', 'new');
  await until('the cache to forget a hash', async () => (await c.hGet('h', 'a')) === 'new');

  const heard = [];
  const ear = other.duplicate();
  ear.on('error', (e) => { throw e; });
  await ear.connect();
  await ear.subscribe('news', (message, channel) => heard.push(channel + ':' + message));
  await ear.pSubscribe('n*', (message, channel) => heard.push('p:' + channel + ':' + message));
  assert.equal(await other.publish('news', 'hello'), 2);
  await until('the messages', () => heard.length === 2);
  assert.deepEqual(heard, ['news:hello', 'p:news:hello']);
  for (const x of [c, other, ear]) await x.close();
}

async function ioMore(port) {
  const c = new Redis({ host: '127.0.0.1', port });
  const ear = new Redis({ host: '127.0.0.1', port });
  assert.deepEqual(await c.multi().set('t', '1').incr('t').exec(), [[null, 'OK'], [null, 2]]);
  assert.equal(await c.hset('ioh', { a: '1', b: '2' }), 2);
  assert.deepEqual(await c.hgetall('ioh'), { a: '1', b: '2' });
  assert.equal(await c.sadd('ios', 'a', 'b'), 2);
  const found = [];
  for await (const members of c.sscanStream('ios')) found.push(...members);
  assert.deepEqual(found.sort(), ['a', 'b']);
  await c.rename('ios', 'ios2');
  assert.equal(await c.scard('ios2'), 2);
  const heard = [];
  ear.on('message', (channel, message) => heard.push(channel + ':' + message));
  assert.equal(await ear.subscribe('io'), 1);
  assert.equal(await c.publish('io', 'hello'), 1);
  await until('the message', () => heard.length === 1);
  assert.deepEqual(heard, ['io:hello']);
  const shown = [];
  const third = c.duplicate();
  const monitor = await third.monitor();
  monitor.on('monitor', (time, args) => shown.push(args.join(' ')));
  await c.get('shown');
  await until('the monitor', () => shown.includes('get shown'));
  monitor.disconnect();
  third.disconnect();
  await ear.quit();
  await c.quit();
}

(async () => {
  const port = Number(process.argv[2]);
  await nodeRedis(port, 2);
  await nodeRedis(port, 3);
  await io(port);
  await nodeRedisMore(port);
  await ioMore(port);
  console.log('ok');
})().catch((e) => { console.error(e); process.exit(1); });
