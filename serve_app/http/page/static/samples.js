/** Documents to try the page with. */

export const SAMPLES = [
  {
    name: "Help centre",
    query: "How do I get my money back?",
    lines: [
      "To change your password, open Settings, choose Security, and enter the old one once more.",
      "Invoices are sent on the first day of a month to the address of the account's owner.",
      "We accept credit cards, SEPA direct debit and bank transfers in euros and US dollars.",
      "Your plan can be upgraded at any time. The price is adjusted to the days that are left.",
      "If an order arrives damaged, send us a photo within 14 days and we replace it.",
      "You can return any item within 30 days. Print the label, and hand the parcel to the carrier.",
      "A refund reaches your bank account three to five working days after the parcel reaches us.",
      "Gift vouchers are valid for three years and cannot be exchanged for cash.",
      "Our support team answers from Monday to Friday, 9 am to 6 pm Central European Time.",
      "To delete your account, write to privacy@example.com. We remove all data within a month.",
    ],
  },
  {
    name: "Encyclopedia",
    query: "how tall is the eiffel tower",
    lines: [
      "The Louvre is a museum in Paris and the most visited one in the world.",
      "Gustave Eiffel's company designed and built the tower from 1887 to 1889.",
      "Paris is the capital and the largest city of France.",
      "The Eiffel Tower is 330 metres tall, about the height of a building with 81 storeys.",
      "The Great Pyramid of Giza was the tallest structure on Earth for 3,800 years.",
      "The Burj Khalifa in Dubai is the tallest building in the world, at 828 metres.",
      "Visitors can climb the stairs of the Eiffel Tower to its second level.",
      "The Seine flows through Paris and into the English Channel at Le Havre.",
    ],
  },
];

const [{ query, lines }] = SAMPLES.slice(-1);

/** The request on the page of a model, as inputs of the playground. */
export const EXAMPLE = { query, text: lines.slice(0, 4).join("\n"), topN: "2" };
