/** Numbers, amounts and times for people. */

const whole = new Intl.NumberFormat("en-US");
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

export const count = (number) => whole.format(number);

/** Such as 12.3K, for axes and tiles. */
export const short = (number) => (number < 10_000 ? count(number) : compact.format(number));

/** `1 document`, `2 documents`. */
export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** An amount in micro-dollars, exact. */
export function dollars(microDollars) {
  return (microDollars / 1_000_000).toLocaleString("en-US", {
    style: "currency",
    currency: "USD",
    minimumFractionDigits: 2,
    maximumFractionDigits: 6,
  });
}

/** An amount in micro-dollars; in cents if it is a dollar or more. */
export function roughDollars(amount) {
  if (Math.abs(amount) < 1_000_000) return dollars(amount);
  return (amount / 1_000_000).toLocaleString("en-US", { style: "currency", currency: "USD" });
}

/** Micro-dollars in a text such as `2.5`, or NaN if it is no amount. */
export function microDollars(text) {
  return /^\d{1,9}(\.\d{1,6})?$/.test(text.trim()) ? Math.round(Number(text) * 1_000_000) : NaN;
}

export function milliseconds(ms) {
  if (ms >= 10_000) return `${(ms / 1000).toFixed(1)} s`;
  return ms >= 100 ? `${count(Math.round(ms))} ms` : `${ms.toFixed(1)} ms`;
}

/** The UTC day after a day. */
export function dayAfter(iso) {
  return new Date(Date.parse(`${iso}T00:00:00Z`) + 86_400_000).toISOString().slice(0, 10);
}

/** A time of the API (UTC) in the time zone of the reader. */
export function time(iso) {
  return new Date(iso).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

/** A UTC day, such as 3 Nov. */
export function day(iso) {
  return new Date(`${iso.slice(0, 10)}T00:00:00Z`).toLocaleDateString("en-GB", {
    day: "numeric",
    month: "short",
    timeZone: "UTC",
  });
}

/** How long ago, such as `3 hours ago`. */
export function ago(iso) {
  const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  const seconds = (new Date(iso) - Date.now()) / 1000;
  const units = [["day", 86_400], ["hour", 3_600], ["minute", 60]];
  for (const [unit, size] of units) {
    if (Math.abs(seconds) >= size) return relative.format(Math.round(seconds / size), unit);
  }
  return "just now";
}

/** The UTC day that is `days` before today, as in the API. */
export function dayBefore(days) {
  return new Date(Date.now() - days * 86_400_000).toISOString().slice(0, 10);
}

/** Such as `English` for `en`; other texts stay as they are. */
export function languageName(code) {
  try {
    return new Intl.DisplayNames("en", { type: "language" }).of(code);
  } catch {
    return code;  // The model's authors wrote something else.
  }
}
