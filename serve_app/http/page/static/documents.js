/** Read documents from text and files. */

/** The lines of a text that are not blank. */
export function lines(text) {
  return text.split(/\r\n|\n|\r/).filter((line) => line.trim());
}

/**
 * Read a .txt, .csv or .jsonl file.
 *
 * Returns `{name, documents}`, or for CSV and objects `{name, unit, columns, rows}`, of which
 * `inColumn` takes a column; `unit` is its name for people. Throws an `Error` that says what is
 * wrong with the file.
 */
export async function readFile(file) {
  const { name } = file;
  const text = (await file.text()).replace(/^\uFEFF/, "");
  let found;
  if (/\.(jsonl|ndjson)$/i.test(name)) found = { name, ...fields(jsonLines(text)) };
  else if (/\.(csv|tsv)$/i.test(name)) found = { name, unit: "Column", ...table(text) };
  else if (/\.(txt|md)$/i.test(name)) found = { name, documents: lines(text) };
  else throw new Error(`${name}: only .txt, .csv and .jsonl files can be read.`);
  if (!(found.documents ?? found.rows).length) throw new Error(`${name} has no documents.`);
  return found;
}

/** A file of `readFile` with the documents from a column; by default the most likely one. */
export function inColumn(file, wanted) {
  if (!file.columns) return file;
  const column = wanted ?? likelyColumn(file);
  const place = file.columns.indexOf(column);
  const documents = file.rows.map((row) => row[place] ?? "").filter((text) => text.trim());
  return { ...file, column, documents };
}

/** The lines of a JSON file as `{documents}`, or as `{unit, columns, rows}` if any is an object. */
function fields(values) {
  if (values.every((value) => typeof value === "string")) return { documents: values };
  const objects = values.filter((value) => typeof value === "object");
  const names = objects.flatMap((each) => Object.keys(each).filter((name) => cell(each[name])));
  const columns = [...new Set(names)];
  if (!columns.length) throw new Error("The objects in the file have no field with a text.");
  const rows = values.map((value) => (
    columns.map((name) => (typeof value === "string" ? value : cell(value[name])))
  ));
  return { unit: "Field", columns, rows };
}

/** The text of a field; lists, objects and nothing have none. */
function cell(value) {
  return ["string", "number", "boolean"].includes(typeof value) ? String(value) : "";
}

function jsonLines(text) {
  return text.split("\n").flatMap((line, place) => {
    if (!line.trim()) return [];
    let value;
    try {
      value = JSON.parse(line);
    } catch {
      throw new Error(`Line ${place + 1} is not JSON.`);
    }
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    if (typeof value !== "string" && !isObject) {
      throw new Error(`Line ${place + 1} is neither a string nor an object.`);
    }
    return [value];
  });
}

/** Parse CSV as in RFC 4180, separated by the first of tab, semicolon and comma in its header. */
function table(text) {
  const header = text.slice(0, text.search(/[\r\n]|$/));
  const separator = ["\t", ";", ","].find((each) => header.includes(each)) ?? ",";
  const rows = [];
  let row = [];
  let cell = "";
  let quoted = false;
  for (let place = 0; place < text.length; place += 1) {
    const letter = text[place];
    if (quoted) {
      if (letter !== '"') cell += letter;
      else if (text[place + 1] === '"') cell += text[++place];
      else quoted = false;
    } else if (letter === '"' && cell === "") quoted = true;
    else if (letter === separator) {
      row.push(cell);
      cell = "";
    } else if (letter === "\n") {
      rows.push([...row, cell]);
      row = [];
      cell = "";
    } else if (letter !== "\r") cell += letter;
  }
  if (quoted) throw new Error("A quotation mark in the file is never closed.");
  if (cell || row.length) rows.push([...row, cell]);
  const [columns = [], ...rest] = rows.filter((each) => each.some((value) => value.trim()));
  return { columns, rows: rest };
}

function likelyColumn({ columns, rows }) {
  const usual = ["text", "document", "passage", "content", "body", "description"];
  const named = columns.find((column) => usual.includes(column.trim().toLowerCase()));
  if (named !== undefined) return named;
  const size = (place) => rows.reduce((sum, row) => sum + (row[place] ?? "").length, 0);
  const places = columns.map((_, place) => place);
  return columns[places.reduce((best, each) => (size(each) > size(best) ? each : best), 0)];
}
