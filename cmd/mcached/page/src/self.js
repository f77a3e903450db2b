// What the daemon says of itself now: its registry (status/self).
import {api, bytes, dateTime, seconds, short} from "./util.js";

/** The reading: [{metric, value}], what the metrics mean, and what is asked of the daemon. */
export const self = {own: [], help: {}, warnings: [], instance: "", interval: 15, startedAt: 0, readAt: 0}; // seconds

/** Reads it. What metrics mean is asked for once. */
export async function readSelf() {
  const known = Object.keys(self.help).length > 0;
  const {data} = await api("status/self", known ? {} : {help: true});
  self.own = data.result.map(r => ({metric: r.metric, value: Number(r.value[1])}));
  self.readAt = data.result.length ? data.result[0].value[0] : 0;
  ({instance: self.instance, scrapeInterval: self.interval, startTime: self.startedAt, warnings: self.warnings = []} = data);
  if (data.help) self.help = data.help;
}

/** The series of a metric that have these labels. */
export const rows = (name, labels = {}) => self.own.filter(r => r.metric.__name__ === name && Object.entries(labels).every(([k, v]) => r.metric[k] === v));

/** Their sum; NaN if there is none. */
export const sum = (name, labels) => {
  const found = rows(name, labels);
  return found.length ? found.reduce((s, r) => s + r.value, 0) : NaN;
};

/** A value as its metric's name says that it is to be read. */
export const valueOf = (name, v) => /_bytes(_total)?$/.test(name) ? bytes(v) : /_timestamp_seconds$/.test(name) ? (v ? dateTime(v * 1000) : "never") : /_seconds(_total)?$/.test(name) ? seconds(v) : short(v);
