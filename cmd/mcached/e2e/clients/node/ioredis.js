// ioredis: pipelines, transactions, scripts, publications, MONITOR.
const assert = require('node:assert');
const Redis = require('ioredis');
const { run, until } = require('./until');

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
  c.defineCommand('addAll', { numberOfKeys: 1, lua: "for _, n in ipairs(ARGV) do redis.call('incrby', KEYS[1], n) end return redis.call('get', KEYS[1])" });
  assert.equal(await c.addAll('scripted', 1, 2, 3), '6');
  assert.equal(await c.addAll('scripted', 4), '10');
  const auto = new Redis({ host: '127.0.0.1', port, db: 5, keyPrefix: 'app:', enableAutoPipelining: true });
  assert.deepEqual(await Promise.all([auto.set('a', 1), auto.incr('a'), auto.mget('a', 'b')]), ['OK', 2, ['2', null]]);
  await auto.quit();
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

run(async (port) => {
  await io(port);
  await ioMore(port);
});
