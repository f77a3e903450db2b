// node-redis and ioredis, each through its own connecting and a few commands.
const assert = require('node:assert');
const { createClient } = require('redis');
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

(async () => {
  const port = Number(process.argv[2]);
  await nodeRedis(port, 2);
  await nodeRedis(port, 3);
  await io(port);
  console.log('ok');
})().catch((e) => { console.error(e); process.exit(1); });
